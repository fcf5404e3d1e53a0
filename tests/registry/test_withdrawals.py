"""Keys that were revoked and people who opted out since a backup: its restore keeps both."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlmodel import select

from registry import audit, deployment, keys, privacy
from registry.errors import BackupError
from registry.interactions import log
from registry.models import AuditEntry, TrainingData, User
from registry.privacy import Consent
from registry.withdrawals import HeldAgain
from tests.registry.test_backup import Make, make, same_key, world
from tests.registry.test_migrations import migrate
from tests.support.backups import NOW, Installation, fill, other

__all__ = ["make", "world"]

both_kinds = pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
SINCE = NOW + timedelta(hours=3)


def say(world: Installation, user: str, consent: Consent, now: datetime) -> None:
    with world.database.write() as session:
        privacy.set_consent(session, world.act("they said so", now), user, consent)


def told_of(world: Installation, action: str) -> list[str]:
    with world.database.read() as session:
        return [
            row.subject
            for row in session.exec(select(AuditEntry).order_by(AuditEntry.sequence))  # type: ignore[arg-type]
            if row.action == action
        ]


@both_kinds
def test_a_key_that_was_revoked_since_stays_revoked(make: Make, tmp_path: Path, kind: str) -> None:
    world = make("home", kind)
    fill(world)
    with world.database.write() as session:
        leaked, good, ended = (
            keys.create(session, world.act("for a program"), name=name, role="admin").prefix
            for name in ("leaked", "good", "ended")
        )
        keys.revoke(session, world.act("over", NOW), ended)
    world.back_up(tmp_path / "backup")
    with world.database.write() as session:
        late = keys.create(session, world.act("new"), name="late", role="user").prefix
        for prefix in (leaked, late):
            keys.revoke(session, world.act("published", SINCE), prefix)
    done = world.restore(tmp_path / "backup", force=True)
    assert done.withdrawals == HeldAgain(num_keys=1, num_people=0)
    with world.database.read() as session:
        found = {row.prefix: row.revoked_at for row in keys.list_keys(session)}
        assert audit.verify(session, key=world.keyring.derive("audit")) is None
    assert found == {leaked: SINCE, good: None, ended: NOW}
    assert told_of(world, "revoke_key") == [f"key:{ended}", f"key:{leaked}"]


@both_kinds
@pytest.mark.parametrize(
    ("before", "since", "then"),
    [
        (None, "no_content", "no_content"),
        ("granted", "no_training", "no_training"),
        ("no_training", "granted", "granted"),
        ("no_training", None, "no_training"),
    ],
)
def test_what_a_user_said_last_holds(
    make: Make,
    tmp_path: Path,
    kind: str,
    before: Consent | None,
    since: Consent | None,
    then: Consent,
) -> None:
    world = make("home", kind)
    fill(world)
    if before is not None:
        say(world, "alice", before, NOW)
    world.back_up(tmp_path / "backup")
    if since is not None:
        say(world, "alice", since, SINCE)
    done = world.restore(tmp_path / "backup", force=True)
    assert done.withdrawals.num_people == (since is not None)
    with world.database.read() as session:
        user = session.get_one(User, world.keyring.pseudonym("alice"))
        selected = session.exec(select(TrainingData.is_selected)).one()
    assert (user.consent, user.consent_at) == (then, NOW if since is None else SINCE)
    assert selected is (before != "no_training" and then == "granted")
    assert len(told_of(world, "set_consent")) == (before is not None) + (since is not None)


def test_an_older_word_in_the_database_that_is_replaced_does_not_count(
    world: Installation, tmp_path: Path
) -> None:
    say(world, "alice", "granted", NOW)
    world.back_up(tmp_path / "earlier")
    say(world, "alice", "no_training", SINCE)
    world.back_up(tmp_path / "later")
    world.database.close()
    for path in world.home.glob("kalimtak.db*"):
        path.unlink()
    world.restore(tmp_path / "earlier")
    done = world.restore(tmp_path / "later", force=True)
    assert done.withdrawals.num_people == 0
    with world.database.read() as session:
        assert privacy.consent_of(session, world.keyring.pseudonym("alice")) == "no_training"


def test_the_same_word_said_again_counts_from_its_own_time(
    world: Installation, tmp_path: Path
) -> None:
    say(world, "alice", "granted", NOW)
    world.back_up(tmp_path / "allowing")
    say(world, "alice", "no_training", NOW - timedelta(hours=1))
    world.back_up(tmp_path / "refusing")
    say(world, "alice", "no_training", SINCE)
    world.restore(tmp_path / "refusing", force=True)
    world.restore(tmp_path / "allowing", force=True)
    with world.database.read() as session:
        assert privacy.consent_of(session, world.keyring.pseudonym("alice")) == "no_training"


@both_kinds
def test_who_opted_out_before_the_first_request_is_still_known(
    make: Make, tmp_path: Path, kind: str
) -> None:
    world = make("home", kind)
    fill(world)
    world.back_up(tmp_path / "backup")
    say(world, "new, refusing", "no_content", SINCE)
    say(world, "new, willing", "granted", SINCE)
    done = world.restore(tmp_path / "backup", force=True)
    assert done.withdrawals == HeldAgain(num_keys=0, num_people=1)
    with world.database.read() as session:
        user = session.get_one(User, world.keyring.pseudonym("new, refusing"))
        assert session.get(User, world.keyring.pseudonym("new, willing")) is None
    assert (user.consent, user.consent_at) == ("no_content", SINCE)
    place = f"users.external_id:{user.id}"
    sealed = user.external_id_encrypted or ""
    assert world.keyring.decrypt(sealed, context=place) == "new, refusing"


def test_an_opt_out_of_somebody_who_cannot_be_read_is_not_lost_silently(
    make: Make, tmp_path: Path
) -> None:
    world, stranger = make("home", "sqlite"), make("stranger", "sqlite")
    fill(world)
    world.back_up(tmp_path / "backup")
    with world.database.write() as session:
        privacy.set_consent(session, stranger.act("by another key"), "bob", "no_training")
    before = world.rows()
    with pytest.raises(BackupError, match=r"has opted out, and their id cannot be read"):
        world.restore(tmp_path / "backup", force=True)
    assert world.rows() == before


def test_a_database_from_before_there_was_consent_is_replaced_too(
    world: Installation, tmp_path: Path, make: Make
) -> None:
    world.back_up(tmp_path / "backup")
    old = make("old", "sqlite")
    same_key(world, old)
    old.database.upgrade()
    with old.database.write() as session:
        deployment.add_workload(session, "default", now=NOW)
        log(session, [other("long ago")], keyring=old.keyring)
        migrate(session.connection(), "0002")
    done = old.restore(tmp_path / "backup", force=True)
    assert (done.withdrawals, done.has_replaced) == (HeldAgain(0, 0), True)
