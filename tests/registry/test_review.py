from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import delete
from sqlmodel import select

from registry import interactions, review
from registry.crypto import Keyring
from registry.db import Database
from registry.deployment import Act
from registry.errors import ConflictError, NotFoundError
from registry.interactions import Feedback, Interaction
from registry.models import AuditEntry, FeedbackEvent, ReviewItem, UserInteraction
from tests.registry.conftest import NOW

MakeAct = Callable[[str], Act]
NewId = Callable[[], str]


@pytest.fixture
def answers(database: Database, keyring: Keyring, new_id: NewId) -> Database:
    """Three answers, the first two of them rated an hour ago."""
    rows = [
        Interaction(
            id=name, created_at=NOW, input_text=name, structured_prompt=name, model_output=name
        )
        for name in ("a", "b", "c")
    ]
    with database.write() as session:
        interactions.log(session, rows, keyring=keyring)
        for name in ("a", "b"):
            interactions.add_feedback(
                session,
                Feedback(interaction_id=name, thumb=1),
                now=NOW - timedelta(hours=1),
                new_id=new_id,
            )
    return database


def add(database: Database, new_id: NewId, kind: str, **reasons: str) -> int:
    with database.write() as session:
        return review.add(
            session, workload="default", kind=kind, reasons=reasons, now=NOW, new_id=new_id
        )


def items(database: Database, **which: str) -> list[tuple[str, str]]:
    with database.read() as session:
        found = review.queue(session, workload="default", **which)  # type: ignore[arg-type]
        return [(item.interaction_id, item.reason) for item, _ in found]


def first(database: Database) -> str:
    with database.read() as session:
        return review.queue(session, workload="default")[0][0].id


def test_an_interaction_is_queued_once_for_each_kind(answers: Database, new_id: NewId) -> None:
    assert add(answers, new_id, review.QUARANTINE, a="a burst") == 1
    assert add(answers, new_id, review.QUARANTINE, a="a copy", b="a burst") == 1
    assert add(answers, new_id, review.INJECTION, a="orders") == 1
    assert sorted(items(answers)) == [
        ("a", "injection: orders"),
        ("a", "quarantine: a burst"),
        ("b", "quarantine: a burst"),
    ]
    assert items(answers, kind=review.INJECTION) == [("a", "injection: orders")]


def test_what_is_held_back_stays_so_until_it_is_accepted(
    answers: Database, new_id: NewId, act: MakeAct
) -> None:
    add(answers, new_id, review.QUARANTINE, a="a burst")
    add(answers, new_id, review.INFORMATIVE, c="unsure")
    with answers.write() as session:
        assert review.held_back(session, workload="default") == {"a"}
    with answers.write() as session:
        item = session.exec(select(ReviewItem).where(ReviewItem.interaction_id == "a")).one()
        review.decide(session, act("it is meant"), item.id, accepted=True)
    with answers.read() as session:
        assert review.held_back(session, workload="default") == set()
        row = session.get(UserInteraction, "a")
        assert row is not None
        assert row.feedback_at == NOW  # so that curation looks at it again
        entry = session.exec(select(AuditEntry)).one()
        assert (entry.action, entry.details["state"]) == ("review", "accepted")
    assert add(answers, new_id, review.QUARANTINE, a="a burst again") == 0


def test_an_item_is_decided_once(answers: Database, new_id: NewId, act: MakeAct) -> None:
    add(answers, new_id, review.QUARANTINE, a="a burst")
    item_id = first(answers)
    with answers.write() as session:
        review.decide(session, act("no"), item_id, accepted=False)
        assert review.held_back(session, workload="default") == {"a"}
    with answers.write() as session, pytest.raises(ConflictError, match="was rejected already"):
        review.decide(session, act("yes"), item_id, accepted=True)
    with answers.write() as session, pytest.raises(NotFoundError):
        review.decide(session, act("yes"), "gone", accepted=True)


def test_a_label_becomes_feedback_of_the_reviewer(
    answers: Database, new_id: NewId, act: MakeAct
) -> None:
    add(answers, new_id, review.INFORMATIVE, c="unsure")
    label = Feedback(
        interaction_id="c", thumb=-1, corrected_output="better", rater_id="rev", is_review=True
    )
    with answers.write() as session:
        review.decide(session, act("judged"), first(answers), accepted=False, label=label)
    with answers.read() as session:
        row = session.get(UserInteraction, "c")
        assert row is not None
        assert (row.user_feedback, row.corrected_output) == (-1, "better")
        event = session.exec(select(FeedbackEvent).where(FeedbackEvent.interaction_id == "c")).one()
        assert (event.rater_id, event.is_review) == ("rev", True)


def test_a_new_choice_replaces_what_nobody_has_judged(answers: Database, new_id: NewId) -> None:
    for chosen in ({"a": "1", "b": "1"}, {"b": "2", "c": "2"}):
        with answers.write() as session:
            review.replace_informative(
                session, workload="default", reasons=chosen, now=NOW, new_id=new_id
            )
    assert sorted(items(answers)) == [("b", "informative: 2"), ("c", "informative: 2")]


def test_pages_follow_each_other(answers: Database, new_id: NewId) -> None:
    add(answers, new_id, review.QUARANTINE, a="1", b="2", c="3")
    seen: list[str] = []
    after = None
    for _ in range(3):
        with answers.read() as session:
            [(item, _)] = review.queue(session, workload="default", limit=1, after=after)
        seen.append(item.interaction_id)
        after = (item.created_at, item.id)
    assert sorted(seen) == ["a", "b", "c"]


def test_erasing_an_interaction_erases_its_items(answers: Database, new_id: NewId) -> None:
    add(answers, new_id, review.QUARANTINE, a="a burst")
    with answers.write() as session:
        session.connection().execute(delete(UserInteraction).where(UserInteraction.id == "a"))  # type: ignore[arg-type]
    assert items(answers) == []
