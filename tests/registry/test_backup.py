"""Backups: one state of everything, whole or not at all, and back into either database."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect, text
from sqlmodel import Session, select

from registry import audit, backup, deployment, experiments, history, lineage, versions
from registry.audit_digest import digest_of
from registry.backup_manifest import (
    MANIFEST_FILE,
    Manifest,
    TableFile,
    faults,
    file_digest,
    read_manifest,
    table_path,
    write_manifest,
)
from registry.crypto import Keyring, load_keyring
from registry.db import Database
from registry.errors import BackupError, ConflictError
from registry.interactions import log
from registry.models import AuditEntry, DeploymentState, RetrainRun
from registry.restore import restore_database
from tests.registry.test_migrations import migrate
from tests.support.backups import LATER, NOW, Installation, fill, other
from tests.support.postgresql import Server

Make = Callable[[str, str], Installation]


@pytest.fixture
def make(tmp_path: Path, postgresql: Server) -> Iterator[Make]:
    """Makes empty installations, on the database that is asked for."""
    with ExitStack() as stack:

        def make_one(name: str, kind: str) -> Installation:
            home = tmp_path / name
            if kind == "sqlite":
                url = f"sqlite:///{home / 'kalimtak.db'}"
            else:
                url = postgresql.create(template="template1")
                stack.callback(postgresql.drop, url)
            made = Installation(home, url)
            stack.callback(made.database.close)
            return made

        yield make_one


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Installation]:
    """A filled installation on SQLite."""
    home = tmp_path / "home"
    found = Installation(home, f"sqlite:///{home / 'kalimtak.db'}")
    fill(found)
    yield found
    found.database.close()


def same_key(source: Installation, target: Installation) -> None:
    target.home.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source.home / "secret.key", target.home / "secret.key")


@pytest.mark.parametrize(
    ("source", "target"),
    [("sqlite", "sqlite"), ("sqlite", "postgresql"), ("postgresql", "sqlite"), ("postgresql",) * 2],
)
def test_a_backup_comes_back_into_either_database(
    make: Make, tmp_path: Path, source: str, target: str
) -> None:
    old, new = make("old", source), make("new", target)
    fill(old)
    manifest = old.back_up(tmp_path / "backup")
    assert manifest.database == source
    same_key(old, new)
    restored = new.restore(tmp_path / "backup")
    assert (restored.num_artifacts, restored.repairs.withdrawn_versions) == (4, ())
    before, after = old.rows(), new.rows()
    changed = {name for name in before if before[name] != after[name]}
    # The restore itself is told, and the training that was running then is not any more.
    assert changed == {
        "audit_log",
        "audit_head",
        "production_history",
        "deployment_state",
        "retrain_runs",
    }
    assert after["audit_log"][: len(before["audit_log"])] == before["audit_log"]
    with new.database.read() as session:
        assert audit.verify(session, key=new.keyring.derive("audit")) is None
        assert lineage.versions_of(session, "i") == ["a", "b", "c"]
        state = deployment.desired(session)
        now = history.at(session, LATER, workload="default").period
        then = history.at(session, NOW, workload="default").period
    assert now is not None
    assert then is not None
    assert (state.champion and state.champion.version, state.share) == ("a", 0.1)
    assert (now.action, now.reason, now.version, now.challenger) == (
        "restore",
        "restored",
        "a",
        "c",
    )
    assert (then.action, then.version) == ("start_experiment", "a")
    for version in state.live:
        assert new.store.exists(version.adapter_digest)


def test_a_training_that_was_running_counts_as_failed(
    world: Installation, tmp_path: Path, make: Make
) -> None:
    world.back_up(tmp_path / "backup", include_keys=True)
    new = make("new", "sqlite")
    assert new.restore(tmp_path / "backup").repairs.interrupted_trainings == ("run",)
    with new.database.read() as session:
        run = session.exec(select(RetrainRun)).one()
    assert (run.status, run.reason) == ("failed", "interrupted: restored")


def test_versions_without_their_adapter_are_taken_out_of_production(
    world: Installation, tmp_path: Path, make: Make
) -> None:
    with world.database.read() as session:
        digests = {name: versions.get(session, name).adapter_digest for name in ("a", "b", "c")}
    for name in ("a", "c"):
        shutil.rmtree(world.home / "artifacts" / digests[name])
    manifest = world.back_up(tmp_path / "backup", include_keys=True)
    assert set(manifest.missing_artifacts) == {digests["a"], digests["c"]}
    new = make("new", "sqlite")
    assert new.restore(tmp_path / "backup").repairs.withdrawn_versions == ("a", "c")
    with new.database.read() as session:
        state = deployment.desired(session)
        standing = {name: versions.get(session, name).deployment_status for name in digests}
        assert audit.verify(session, key=new.keyring.derive("audit")) is None
    assert [version.version for version in state.live] == ["b"]
    assert standing == {"a": "rolled_back", "b": "champion", "c": "rolled_back"}


def test_what_replicas_have_followed_is_not_taken_for_what_is_new(
    world: Installation, tmp_path: Path
) -> None:
    world.back_up(tmp_path / "backup")
    with world.database.write() as session:
        row = session.exec(select(DeploymentState)).one()
        row.generation = 70
        session.add(row)
    world.restore(tmp_path / "backup", force=True)
    with world.database.read() as session:
        assert deployment.desired(session).generation == 71


def test_a_database_with_content_is_left_alone_unless_forced(
    world: Installation, tmp_path: Path
) -> None:
    world.back_up(tmp_path / "backup")
    with world.database.write() as session:
        log(session, [other("later")], keyring=world.keyring)
    before = world.rows()
    with pytest.raises(BackupError, match="is not empty"):
        world.restore(tmp_path / "backup")
    assert world.rows() == before
    world.restore(tmp_path / "backup", force=True)
    assert [row[0] for row in world.rows()["user_interactions"]] == ["i"]


def test_what_triggers_leave_behind_is_not_in_the_way(make: Make, tmp_path: Path) -> None:
    world = make("home", "postgresql")
    fill(world)
    world.back_up(tmp_path / "backup")
    with world.database.write() as session:
        session.connection().execute(
            text(
                "CREATE FUNCTION count_up() RETURNS trigger LANGUAGE plpgsql "
                "AS $$ BEGIN RETURN NULL; END $$"
            )
        )
    world.restore(tmp_path / "backup", force=True)
    with world.database.read() as session:
        left = session.connection().execute(
            text("SELECT count(*) FROM pg_proc WHERE proname = 'count_up'")
        )
        assert left.scalar() == 0


def test_a_restore_that_fails_changes_nothing(
    world: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.back_up(tmp_path / "backup")
    before = world.rows()

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("registry.restore.settle", fail)
    with pytest.raises(OSError, match="the disk is full"):
        world.restore(tmp_path / "backup", force=True)
    assert world.rows() == before


def test_a_backup_of_an_older_schema_is_upgraded(
    world: Installation, tmp_path: Path, make: Make
) -> None:
    folder = tmp_path / "backup"
    made = world.back_up(folder, include_keys=True)
    older = columns_of(f"sqlite:///{tmp_path / 'old.db'}", "0006")
    write_manifest(folder, as_of_0006(folder, made, world.keyring, older))
    new = make("new", "sqlite")
    new.restore(folder)
    new.database.check()
    with new.database.read() as session:
        found = history.periods(session, workload="default")
        assert [row.action for row in found] == ["restore", None, None, None]
        assert audit.verify(session, key=new.keyring.derive("audit")) is None


def columns_of(url: str, revision: str) -> dict[str, set[str]]:
    """The tables that an earlier schema had, with their columns."""
    database = Database(url)
    database.upgrade()
    with database.write() as session:
        migrate(session.connection(), revision)
    found = inspect(database.engine)
    tables = {
        name: {column["name"] for column in found.get_columns(name)}
        for name in found.get_table_names()
    }
    database.close()
    return tables


def as_of_0006(
    folder: Path, manifest: Manifest, keyring: Keyring, older: dict[str, set[str]]
) -> Manifest:
    """The backup as the code before the audit chain's head would have made it."""
    tables = {}
    for name, table in manifest.tables.items():
        if name not in older:
            continue
        path, columns = table_path(folder, name), table.columns
        kept = [index for index, column in enumerate(columns) if column in older[name]]
        with gzip.open(path, "rt") as file:
            rows = [json.loads(line) for line in file]
        if name == "audit_log":
            rows = without_key_ids(rows, columns, keyring)
        with gzip.open(path, "wt") as file:
            file.writelines(json.dumps([row[index] for index in kept]) + "\n" for row in rows)
        tables[name] = TableFile(
            columns=tuple(columns[index] for index in kept),
            rows=len(rows),
            sha256=file_digest(path),
        )
    older_one = manifest.model_copy(update={"schema_revision": "0006", "tables": tables})
    return older_one.sealed(keyring)


def without_key_ids(
    rows: list[list[Any]], columns: tuple[str, ...], keyring: Keyring
) -> list[list[Any]]:
    """Entries of today as they were written before keys had names."""
    key, previous, found = keyring.derive("audit"), audit.GENESIS, []
    for row in rows:
        values = dict(zip(columns, row, strict=True))
        at = datetime.fromisoformat(values["at"])
        entry = AuditEntry(**values | {"at": at, "key_id": None, "previous_digest": previous})
        entry.digest = digest_of(entry, key)
        told = values | {"previous_digest": previous, "digest": entry.digest}
        found.append([told[name] for name in columns])
        previous = entry.digest
    return found


@pytest.mark.parametrize("file", ["table", "manifest", "artifact", "key"])
def test_an_altered_backup_is_found(world: Installation, tmp_path: Path, file: str) -> None:
    folder = tmp_path / "backup"
    manifest = world.back_up(folder, include_keys=True)
    if file == "table":
        path = table_path(folder, "users")
        path.write_bytes(path.read_bytes()[:-3])
    elif file == "artifact":
        (folder / "artifacts" / manifest.artifacts[0] / "content.txt").write_text("x")
    elif file == "key":
        (folder / "keys" / "secret.key").unlink()
    else:
        path = folder / MANIFEST_FILE
        path.write_text(path.read_text().replace('"rows": 3', '"rows": 4'))
    assert len(faults(folder, read_manifest(folder), keyring=world.keyring)) >= 1


def test_a_key_that_does_not_fit_is_refused(
    world: Installation, tmp_path: Path, make: Make
) -> None:
    world.back_up(tmp_path / "backup")
    new = make("new", "sqlite")
    with pytest.raises(BackupError, match="made without its keys"):
        new.restore(tmp_path / "backup")
    assert not (new.home / "secret.key").exists()
    load_keyring(new.home)
    with pytest.raises(BackupError, match="is not the key that the backup was made with"):
        new.restore(tmp_path / "backup")


def test_keys_are_only_in_a_backup_that_was_to_have_them(
    world: Installation, tmp_path: Path
) -> None:
    world.keyring.fields.add()
    secrets = [path.read_bytes() for path in (world.home / "secret.key", *keys(world.home))]
    assert len(secrets) == 2

    def holds(folder: Path) -> list[bool]:
        content = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
        return [any(secret in data for data in content) for secret in secrets]

    world.back_up(tmp_path / "without")
    world.back_up(tmp_path / "with", include_keys=True)
    assert holds(tmp_path / "without") == [False, False]
    assert holds(tmp_path / "with") == [True, True]


def keys(home: Path) -> list[Path]:
    return list((home / "keys").iterdir())


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_backup_is_one_state_though_others_write(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    world = make("home", kind)
    fill(world)
    before = world.rows()
    dump, seen = backup._dump, []

    def dump_slowly(connection: Any, table: Any, path: Path) -> Any:
        if table.name == "users":  # others write before the tables that come later are read
            with world.database.write() as session:
                log(session, [other("meanwhile")], keyring=world.keyring)
                experiments.ramp(
                    session,
                    world.act("meanwhile"),
                    experiment_id=trial(session),
                    share=0.5,
                )
        seen.append(table.name)
        return dump(connection, table, path)

    monkeypatch.setattr(backup, "_dump", dump_slowly)
    manifest = world.back_up(tmp_path / "backup", include_keys=True)
    assert seen.index("users") < seen.index("user_interactions")
    assert manifest.tables["user_interactions"].rows == len(before["user_interactions"]) == 1
    assert manifest.tables["audit_log"].rows == manifest.audit_sequence == len(before["audit_log"])
    assert len(world.rows()["user_interactions"]) == 2


def trial(session: Session) -> str:
    found = experiments.running(session, workload="default")
    assert found is not None
    return found.id


def test_an_interrupted_backup_leaves_nothing(
    world: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(backup, "write_manifest", interrupt)
    with pytest.raises(KeyboardInterrupt):
        world.back_up(tmp_path / "out" / "backup")
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(BackupError, match="is no backup"):
        read_manifest(tmp_path / "out")


def test_a_backup_overwrites_nothing(world: Installation, tmp_path: Path) -> None:
    (tmp_path / "backup").mkdir()
    (tmp_path / "backup" / "mine.txt").write_text("mine")
    with pytest.raises(ConflictError, match="is there already"):
        world.back_up(tmp_path / "backup")


def test_a_newer_backup_is_refused(world: Installation, tmp_path: Path) -> None:
    manifest = world.back_up(tmp_path / "backup")
    newer = manifest.model_copy(update={"schema_revision": "9999"})
    with pytest.raises(BackupError, match="newer than this code"):
        restore_database(
            tmp_path / "backup", newer, world.database, world.store, world.act(""), force=True
        )
