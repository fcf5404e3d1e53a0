"""Users of whom nothing is left go, but not those who come back at that moment."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlmodel import Session, select

from registry import interactions, privacy, retention
from registry.crypto import Keyring
from registry.db import Database
from registry.deployment import Act
from registry.interactions import Interaction
from registry.models import AuditEntry, User, UserInteraction
from registry.settings_privacy import RetentionSettings
from tests.registry.conftest import NOW
from tests.support.postgresql import while_held

ANN, BOB = "ann@example.org", "bob@example.org"
Acts = Callable[[str], Act]


@pytest.fixture
def forgotten(shared: Database, keyring: Keyring) -> Database:
    """Two users who have asked nothing that is still there."""
    long_ago = NOW - timedelta(days=4000)
    with shared.write() as session:
        for name in (ANN, BOB):
            session.add(User(id=keyring.pseudonym(name), created_at=long_ago))
    return shared


def expire(database: Database, act: Acts) -> int:
    settings = RetentionSettings(users_days=365)
    return retention.expire(database, act("old"), settings, pause=lambda: None)["users"]


def test_who_refuses_at_that_moment_stays_known_as_refusing(
    forgotten: Database, act: Acts, keyring: Keyring
) -> None:
    def refuse(session: Session) -> None:
        privacy.set_consent(session, act("asked"), ANN, "no_training")

    assert while_held(forgotten, refuse, lambda: expire(forgotten, act)) == 1
    with forgotten.read() as session:
        assert privacy.consent_of(session, keyring.pseudonym(ANN)) == "no_training"
        (told,) = session.exec(select(AuditEntry).where(AuditEntry.action == "expire"))
    assert told.details["rows"] == 1


def test_who_asks_at_that_moment_is_still_the_one_who_asked(
    forgotten: Database, act: Acts, keyring: Keyring
) -> None:
    item = Interaction(
        id="i",
        created_at=NOW,
        input_text="a",
        structured_prompt="b",
        model_output="c",
        external_user_id=BOB,
    )

    def ask(session: Session) -> None:
        interactions.log(session, [item], keyring=keyring)

    assert while_held(forgotten, ask, lambda: expire(forgotten, act)) == 1
    with forgotten.read() as session:
        assert session.get_one(UserInteraction, "i").user_id == keyring.pseudonym(BOB)
