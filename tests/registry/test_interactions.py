from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlmodel import select

from registry import interactions
from registry.crypto import Keyring
from registry.db import Database
from registry.errors import NotFoundError
from registry.interactions import Feedback, Interaction
from registry.models import ClientMetadata, FeedbackEvent, User, UserInteraction
from registry.statistics import statistics
from tests.registry.conftest import NOW

NewId = Callable[[], str]


def interaction(number: int, **changes: object) -> Interaction:
    values: dict[str, object] = {
        "id": f"i{number}",
        "created_at": NOW + timedelta(seconds=number),
        "input_text": "Write a mail",
        "structured_prompt": "Role: x",
        "model_output": "Role: x",
        "external_user_id": "user-123",
        "tokens_input": 3,
        "tokens_output": 4,
        "quality_score": 0.8,
    }
    return Interaction(**(values | changes))  # type: ignore[arg-type]


def log(database: Database, keyring: Keyring, *items: Interaction) -> None:
    with database.write() as session:
        interactions.log(session, items, keyring=keyring)


def test_a_user_is_stored_by_pseudonym_alone(database: Database, keyring: Keyring) -> None:
    log(database, keyring, interaction(1), interaction(2))
    log(database, keyring, interaction(3))
    with database.read() as session:
        user = session.exec(select(User)).one()
        row = session.get(UserInteraction, "i1")
    assert row is not None
    assert row.user_id == user.id == keyring.pseudonym("user-123")
    assert "user-123" not in user.model_dump_json()
    assert (row.tokens_total, row.created_at) == (7, NOW + timedelta(seconds=1))


def test_client_metadata_is_encrypted_and_apart(database: Database, keyring: Keyring) -> None:
    log(database, keyring, interaction(1, ip_address="192.0.2.7", user_agent="curl"))
    with database.read() as session:
        row = session.exec(select(ClientMetadata)).one()
    assert row.ip_address_encrypted is not None
    assert "192.0.2.7" not in row.ip_address_encrypted
    context = "client_metadata.ip_address:i1"
    assert keyring.decrypt(row.ip_address_encrypted, context=context) == "192.0.2.7"


def test_history_is_newest_first_and_only_ones_own(database: Database, keyring: Keyring) -> None:
    log(database, keyring, *(interaction(n) for n in range(4)))
    log(database, keyring, interaction(9, external_user_id="other"))
    with database.read() as session:
        own = interactions.history(session, user_id=keyring.pseudonym("user-123"), limit=3)
    assert [row.id for row in own] == ["i3", "i2", "i1"]


def test_later_feedback_replaces_what_is_shown_and_every_event_is_kept(
    database: Database, keyring: Keyring, new_id: NewId
) -> None:
    log(database, keyring, interaction(1))
    with database.write() as session:
        for feedback in (
            Feedback(interaction_id="i1", score=5, text="perfect"),
            Feedback(interaction_id="i1", score=2),
        ):
            interactions.add_feedback(session, feedback, now=NOW, new_id=new_id)
    with database.read() as session:
        row = session.get(UserInteraction, "i1")
        events = session.exec(select(FeedbackEvent)).all()
    assert row is not None
    assert (row.feedback_score, row.user_feedback, row.feedback_text) == (2, -1, "perfect")
    assert sorted(event.score or 0 for event in events) == [2, 5]


def test_feedback_on_nothing_is_not_found(database: Database, new_id: NewId) -> None:
    with pytest.raises(NotFoundError, match="'nope'"), database.write() as session:
        interactions.add_feedback(
            session, Feedback(interaction_id="nope", score=5), now=NOW, new_id=new_id
        )


@given(st.integers(1, 5))
def test_a_score_projects_to_its_thumb(score: int) -> None:
    assert interactions.thumb_of(score) == {1: -1, 2: -1, 3: 0, 4: 1, 5: 1}[score]


def test_statistics_count_what_people_saw(
    database: Database, keyring: Keyring, new_id: NewId
) -> None:
    log(
        database,
        keyring,
        interaction(1),
        interaction(2, quality_score=0.4),
        interaction(3, error="timeout", quality_score=None),
        interaction(4, role="shadow", quality_score=0.0),
    )
    with database.write() as session:
        interactions.add_feedback(
            session, Feedback(interaction_id="i1", thumb=1), now=NOW, new_id=new_id
        )
    with database.read() as session:
        found = statistics(session)
    assert (found.total, found.rated, found.positive, found.errors) == (3, 1, 1, 1)
    assert found.avg_quality == pytest.approx(0.6)
    assert found.error_rate == pytest.approx(1 / 3)


def test_history_goes_on_page_by_page_within_one_moment(
    database: Database, keyring: Keyring
) -> None:
    rows = [interaction(number, created_at=NOW) for number in (0, 1, 3)]
    log(database, keyring, *rows, interaction(2, created_at=NOW, error="broken"))
    with database.read() as session:
        pages = [
            interactions.history(
                session,
                user_id=keyring.pseudonym("user-123"),
                limit=2,
                before=NOW if before_id else None,
                before_id=before_id,
                failed=False,
            )
            for before_id in (None, "i1")
        ]
    assert [[row.id for row in page] for page in pages] == [["i3", "i1"], ["i0"]]
