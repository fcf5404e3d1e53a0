"""`kalimtak history | lineage | audit | backup | restore | export`, as people type them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlmodel import select
from typer.testing import CliRunner, Result

from flows.cli import app
from flows.context import Context
from flows.retrain import run_retrain
from registry import by_hand, erasure, keys, privacy
from registry.errors import KalimtakError
from registry.models import User
from registry.settings import load_settings
from tests.flows.conftest import FakeClock
from tests.support.fake_learner import FakeLearner
from tests.support.usage import log_liked

Cli = Callable[..., Result]


@pytest.fixture
def cli(context: Context, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    """Runs a command in the installation's folder."""
    monkeypatch.chdir(context.settings.home.parent)
    monkeypatch.setenv("COLUMNS", "200")
    before = dict(os.environ)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments))

    yield run
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def version(context: Context, clock: FakeClock) -> str:
    """A version that was tried, then promoted an hour later; the clock moved on by a day."""
    log_liked(context, 30, at=clock())
    name = run_retrain(context, FakeLearner([0.8]), workload="default").version or ""
    clock.move(hours=1)
    with context.database.write() as session:
        by_hand.promote(session, context.act("cli", "convinced"), workload="default", version=None)
    clock.move(days=1)
    return name


def told(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refusal(result: Result) -> str:
    assert isinstance(result.exception, KalimtakError)
    return str(result.exception)


def test_history_tells_what_was_in_production(cli: Cli, version: str, clock: FakeClock) -> None:
    rows = told(cli("history", "--json"))
    assert [(row["action"], row["version"], row["share"]) for row in rows] == [
        ("promote", version, 0.1),
        ("start_experiment", None, 0.1),
    ]
    # A promotion begins a hold-back: some people keep what they had.
    assert None is not rows[0]["experiment_id"] != rows[1]["experiment_id"] is not None
    table = cli("history").stdout
    assert "convinced" in table
    assert f"{version}, the base model on 10%" in table
    assert version in table
    tried = clock() - timedelta(days=1, minutes=30)
    at = told(cli("history", "--at", tried.isoformat(), "--json"))
    assert (at["period"]["challenger"], at["period"]["version"]) == (version, None)
    assert "nothing had been decided yet" in cli("history", "--at", "2020-01-01").stdout
    later = told(cli("history", "--since", clock().isoformat(), "--json"))
    assert [row["action"] for row in later] == ["promote"]
    assert "write a time as" in refusal(cli("history", "--since", "yesterday"))
    assert "no workload 'x'" in refusal(cli("history", "--workload", "x"))


def test_history_tells_who_answered(cli: Cli, version: str) -> None:
    assert version
    found = told(cli("history", "--interaction", "liked-000001", "--json"))
    assert (found["version"], found["role"], found["source"]) == (None, "default", "served")
    assert found["production"]["period"]["action"] == "start_experiment"
    assert (
        "the base model (default, served)" in cli("history", "--interaction", "liked-000001").stdout
    )
    assert "never logged here, or was erased" in refusal(cli("history", "--interaction", "x"))


def test_lineage_goes_both_ways(cli: Cli, version: str) -> None:
    down = told(cli("lineage", version, "--json"))
    dataset = down["line"][0]["dataset"]
    assert (down["kind"], down["num_interactions"], dataset["num_present"]) == ("version", 30, 30)
    up = told(cli("lineage", "liked-000001", "--json"))
    assert (up["kind"], up["versions"]) == ("interaction", [version])
    assert up["samples"][0]["datasets"][0]["digest"] == dataset["digest"]
    assert told(cli("lineage", dataset["id"], "--json"))["versions"] == [version]
    tree = cli("lineage", version).stdout
    assert "learned from 30 interactions in all" in tree
    assert dataset["digest"][:12] in tree
    assert f"version {version} learned from it" in cli("lineage", "liked-000001").stdout
    assert "no version, dataset or interaction" in refusal(cli("lineage", "x"))


def test_audit_verify_ends_with_1_at_the_first_bad_entry(
    cli: Cli, version: str, context: Context, tmp_path: Path
) -> None:
    assert version
    anchor = tmp_path / "anchor.json"
    assert json.loads(cli("audit", "head", "--to", str(anchor)).stdout)["sequence"] == 7
    assert "7 entries are as they were written" in cli("audit", "verify").stdout
    assert "anchored at 7" in cli("audit", "verify", "--anchor", str(anchor)).stdout
    listed = cli("audit", "list", "--json", "--action", "promote").stdout.splitlines()
    assert [json.loads(line)["actor"] for line in listed] == ["cli"]
    assert "convinced" in cli("audit", "list").stdout
    with context.database.write() as session:
        session.connection().execute(
            text("UPDATE audit_log SET actor = 'nobody' WHERE sequence = 2")
        )
    found = cli("audit", "verify")
    assert (found.exit_code, found.stdout) == (
        1,
        "entry 2 was edited, or moved from another place\n",
    )
    assert json.loads(cli("audit", "verify", "--json").stdout)["fault"]["entry"] == 2
    assert "cannot read the anchor" in refusal(cli("audit", "verify", "--anchor", "no-such"))


def test_the_head_goes_where_the_settings_say(
    cli: Cli, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert version
    target = (tmp_path / "elsewhere.json").as_uri()
    monkeypatch.setenv("KALIMTAK_AUDIT__ANCHOR", target)
    printed = cli("audit", "head").stdout
    assert (tmp_path / "elsewhere.json").read_text() == printed
    monkeypatch.setenv("KALIMTAK_AUDIT__ANCHOR", "http://127.0.0.1:9/head")
    assert "cannot write the anchor to" in refusal(cli("audit", "head"))


def test_a_backup_is_made_checked_and_brought_back(
    cli: Cli, version: str, context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = cli("backup", "--include-keys", str(tmp_path / "backup"))
    assert made.exit_code == 0, made.output
    assert "it holds the keys" in made.stdout
    assert "are as they were on" in cli("backup", "verify", str(tmp_path / "backup")).stdout
    assert "is not empty" in refusal(cli("restore", str(tmp_path / "backup")))
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    back = cli("restore", str(tmp_path / "backup"), "--reason", "a new machine")
    assert back.exit_code == 0, back.output
    assert "no database was replaced that could tell what was revoked" in back.stdout
    rows = told(cli("history", "--json"))
    assert [row["action"] for row in rows] == ["restore", "promote", "start_experiment"]
    assert rows[0]["reason"].endswith("a new machine")
    assert rows[0]["version"] == version
    assert cli("audit", "verify").exit_code == 0
    assert told(cli("lineage", version, "--json"))["num_interactions"] == 30
    settings = load_settings(directory=other)
    assert (settings.home / "secret.key").read_bytes() == (
        context.settings.home / "secret.key"
    ).read_bytes()


@pytest.mark.parametrize("known_by", ["the database that is replaced", "reports in files"])
def test_who_was_erased_since_does_not_come_back_with_a_backup(
    cli: Cli, context: Context, clock: FakeClock, tmp_path: Path, known_by: str
) -> None:
    log_liked(context, 30, at=clock())
    [person] = people_of(context)[:1]
    told_of = len(people_of(context))
    cli("backup", str(tmp_path / "backup"))
    assert cli("erase-user", person, "--approved-by", "the DPO").exit_code == 0
    if known_by == "reports in files":
        context.database.close()
        for path in context.settings.home.glob("kalimtak.db*"):
            path.unlink()
    else:
        shutil.rmtree(context.settings.home / "erasures")
    back = cli("restore", str(tmp_path / "backup"), "--force")
    assert back.exit_code == 0, back.output
    assert "1 erasures that the backup did not know hold again" in back.stdout
    assert "1 people are erased again" in back.stdout
    assert person not in people_of(context)
    assert len(people_of(context)) == told_of - 1
    again = cli("restore", str(tmp_path / "backup"), "--force")
    assert "2 erasures that the backup did not know hold again" in again.stdout
    assert cli("audit", "verify").exit_code == 0


@pytest.mark.parametrize("completed_since", [True, False])
def test_an_erasure_that_a_backup_holds_as_begun_is_finished_by_its_restore(
    cli: Cli, context: Context, clock: FakeClock, tmp_path: Path, completed_since: bool
) -> None:
    log_liked(context, 30, at=clock())
    person, *others = people_of(context)
    with context.database.write() as session:
        act = context.act("cli", "asked to")
        erasure.begin(session, act, person, approved_by="the DPO", policy="list")
    cli("backup", str(tmp_path / "backup"))
    if completed_since:
        assert cli("erase-user", person, "--approved-by", "the DPO").exit_code == 0
    back = cli("restore", str(tmp_path / "backup"), "--force")
    assert back.exit_code == 0, back.output
    assert "1 people are erased again" in back.stdout
    assert people_of(context) == others
    with context.database.read() as session:
        assert erasure.pending(session) == []


def test_a_restore_tells_which_keys_and_opt_outs_hold_since(
    cli: Cli, context: Context, clock: FakeClock, tmp_path: Path
) -> None:
    log_liked(context, 3, at=clock())
    person = people_of(context)[0]
    with context.database.write() as session:
        key = keys.create(session, context.act("cli", "leaks"), name="app", role="user")
    cli("backup", str(tmp_path / "backup"))
    assert cli("key", "revoke", key.prefix).exit_code == 0
    assert cli("consent", person, "opt_out").exit_code == 0
    back = cli("restore", str(tmp_path / "backup"), "--force")
    assert back.exit_code == 0, back.output
    assert "1 API keys that were revoked since the backup stay revoked" in back.stdout
    assert "what 1 people have allowed or refused since the backup holds" in back.stdout
    assert "no database was replaced" not in back.stdout
    assert cli("consent", person).stdout == "no_training\n"


def people_of(context: Context) -> list[str]:
    with context.database.read() as session:
        return [
            context.keyring.decrypt(user.external_id_encrypted or "", context=place(user.id))
            for user in session.exec(select(User).order_by(User.id))
        ]


def place(user_id: str) -> str:
    return f"users.external_id:{user_id}"


def test_a_report_that_we_did_not_sign_erases_nobody(
    cli: Cli, context: Context, clock: FakeClock, tmp_path: Path
) -> None:
    log_liked(context, 3, at=clock())
    before = people_of(context)
    subject = privacy.subject_of(context.keyring.pseudonym(before[0]), context.keyring)
    cli("backup", str(tmp_path / "backup"))
    forged = context.settings.home / "erasures"
    forged.mkdir()
    report = {"erasure_id": "e", "subject": subject, "signature": "0" * 64}
    (forged / "e.json").write_text(json.dumps(report), encoding="utf-8")
    (forged / "broken.json").write_text("{", encoding="utf-8")
    back = cli("restore", str(tmp_path / "backup"), "--force")
    assert back.exit_code == 0, back.output
    assert people_of(context) == before


def test_a_damaged_backup_is_named_and_not_restored(
    cli: Cli, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert version
    cli("backup", str(tmp_path / "backup"), "--include-keys")
    table = tmp_path / "backup" / "tables" / "users.jsonl.gz"
    table.write_bytes(table.read_bytes() + b"x")
    checked = cli("backup", "verify", str(tmp_path / "backup"))
    assert checked.exit_code == 1
    assert "table users: it was altered or cut short" in checked.stdout
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    assert "cannot be restored: table users" in refusal(cli("restore", str(tmp_path / "backup")))
    assert "is no backup" in refusal(cli("restore", str(tmp_path)))


def test_a_backup_that_lacks_a_key_of_its_own_is_named(
    cli: Cli, version: str, tmp_path: Path
) -> None:
    assert version
    assert cli("keys", "rotate").exit_code == 0
    cli("backup", str(tmp_path / "backup"), "--include-keys")
    assert cli("backup", "verify", str(tmp_path / "backup")).exit_code == 0
    (key,) = (tmp_path / "backup" / "keys" / "keys").iterdir()
    key.unlink()
    checked = cli("backup", "verify", str(tmp_path / "backup"))
    assert checked.exit_code == 1
    assert f"key {key.stem.removeprefix('0001-')} is missing" in checked.stdout
    cli("backup", str(tmp_path / "without"))
    assert cli("backup", "verify", str(tmp_path / "without")).exit_code == 0


def test_an_export_says_how_much_it_wrote(cli: Cli, version: str, tmp_path: Path) -> None:
    assert version
    for what, number in (("interactions", 30), ("feedback", 30), ("dataset", 30)):
        out = str(tmp_path / what)
        assert cli("export", what, "--out", out).stdout == f"{number} rows in {out}\n"
        assert "is there already" in refusal(cli("export", what, "--out", out))
    missing = cli("export", "feedback", "--out", "x", "--workload", "no-such")
    assert "there is no workload 'no-such'" in refusal(missing)


@pytest.mark.parametrize("command", [("backup",), ("export", "interactions", "--out")])
def test_what_could_not_be_written_is_not_recorded(
    cli: Cli, tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / "file").touch()
    assert "cannot write" in refusal(cli(*command, str(tmp_path / "file" / "folder")))
    assert cli("audit", "list").stdout == ""
