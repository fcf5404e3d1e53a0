"""Consent holds where rows are written, where samples are chosen, and for what is there."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlmodel import Session, select

from registry import erasure, interactions, privacy, user_export
from registry.candidates import candidates
from registry.crypto import Keyring
from registry.db import Database
from registry.deployment import Act
from registry.interactions import Feedback, Interaction
from registry.models import (
    AuditEntry,
    ClientMetadata,
    FeedbackEvent,
    TrainingData,
    User,
    UserInteraction,
)
from registry.statistics import count_quality_samples
from registry.user_export import export_user
from tests.registry.conftest import NOW
from tests.support.postgresql import while_held

ANN = "ann@example.org"


def log(session: Session, keyring: Keyring, row_id: str, user: str | None = ANN) -> None:
    item = Interaction(
        id=row_id,
        created_at=NOW,
        input_text="a secret",
        messages=[{"role": "user", "content": "a secret"}],
        structured_prompt="a secret",
        model_output="a secret",
        external_user_id=user,
        quality_score=0.9,
        ip_address="10.0.0.1",
        tokens_input=1,
        tokens_output=2,
    )
    interactions.log(session, [item], keyring=keyring)


def rate(session: Session, act: Act, row_id: str) -> None:
    feedback = Feedback(interaction_id=row_id, score=5, text="well", corrected_output="better")
    interactions.add_feedback(session, feedback, now=NOW, new_id=act.new_id, keyring=act.keyring)


def sample(row_id: str) -> TrainingData:
    return TrainingData(
        id=f"sample-{row_id}",
        source_interaction_id=row_id,
        input_prompt="a secret",
        target_output="a secret",
        content_hash=row_id,
        cluster_id=row_id,
        split="train",
        is_selected=True,
        created_at=NOW,
    )


def test_who_refuses_during_their_first_request_has_refused(
    shared: Database, act: Callable[[str], Act]
) -> None:
    at = act("a test")

    def refuse() -> None:
        with shared.write() as session:
            privacy.set_consent(session, at, ANN, "no_training")

    while_held(shared, lambda session: log(session, at.keyring, "i"), refuse)
    with shared.read() as session:
        assert privacy.consent_of(session, at.keyring.pseudonym(ANN)) == "no_training"
        assert session.get_one(UserInteraction, "i").user_id == at.keyring.pseudonym(ANN)


def test_who_wants_no_content_kept_leaves_numbers_only(
    database: Database, act: Callable[[str], Act]
) -> None:
    at = act("a test")
    with database.write() as session:
        privacy.set_consent(session, at, ANN, "no_content")
        log(session, at.keyring, "i")
        rate(session, at, "i")
    with database.read() as session:
        row = session.get_one(UserInteraction, "i")
        assert (row.input_text, row.messages, row.structured_prompt) == ("", None, "")
        assert (row.model_output, row.feedback_text, row.corrected_output) == ("", None, None)
        assert (row.tokens_total, row.feedback_score) == (3, 5)
        event = session.exec(select(FeedbackEvent)).one()
        assert (event.score, event.text, event.corrected_output) == (5, None, None)
        assert session.exec(select(ClientMetadata)).all() == []


def test_late_feedback_of_a_reviewer_who_was_erased_names_nobody(
    database: Database, act: Callable[[str], Act]
) -> None:
    at = act("a test")
    bob = at.keyring.pseudonym("bob")
    with database.write() as session:
        log(session, at.keyring, "i")
        erasure.begin(session, at, "bob", approved_by="bob", policy="list")
        for number, moment in enumerate((NOW, NOW + timedelta(hours=1))):
            said = Feedback(
                interaction_id="i", thumb=1, rater_id=bob, is_review=True, given_at=moment
            )
            interactions.add_feedback(
                session, said, now=moment, new_id=lambda n=number: f"e{n}", keyring=at.keyring
            )
        events = session.exec(select(FeedbackEvent).order_by(FeedbackEvent.id)).all()
        assert [event.rater_id for event in events] == [None, bob]


def test_who_opts_out_is_not_learned_from_until_they_say_otherwise(
    database: Database, act: Callable[[str], Act]
) -> None:
    at = act("a test")
    with database.write() as session:
        for row_id, user in (("i", ANN), ("j", "bob"), ("k", None)):
            log(session, at.keyring, row_id, user)
            rate(session, at, row_id)
        session.add(sample("i"))

    def seen() -> tuple[set[str], int, bool]:
        with database.read() as session:
            found = candidates(
                session,
                workload="default",
                min_quality=0.5,
                min_quality_if_liked=0.5,
                min_feedback=1,
                limit=9,
            )
            number = count_quality_samples(
                session,
                workload="default",
                min_quality=0.5,
                min_quality_if_liked=0.5,
                min_feedback=1,
                since=None,
            )
            selected = session.get_one(TrainingData, "sample-i").is_selected
            return {row.id for row, _ in found}, number, selected

    assert seen() == ({"i", "j", "k"}, 3, True)
    for consent, expected in (
        ("no_training", ({"j", "k"}, 2, False)),
        ("granted", ({"i", "j", "k"}, 3, False)),  # until curation has read it again
    ):
        with database.write() as session:
            privacy.set_consent(session, at, ANN, consent)  # type: ignore[arg-type]
        assert seen() == expected
    with database.read() as session:
        assert session.get_one(UserInteraction, "i").input_text == "a secret"


def test_consent_may_come_before_the_first_request_and_is_audited_without_a_name(
    database: Database, act: Callable[[str], Act]
) -> None:
    at = act("a test")
    with database.write() as session:
        privacy.set_consent(session, at, ANN, "no_training")
    with database.write() as session:
        log(session, at.keyring, "i")
    with database.read() as session:
        user = session.exec(select(User)).one()
        assert privacy.consent_of(session, user.id) == "no_training"
        (entry,) = session.exec(select(AuditEntry)).all()
    assert entry.details == {"consent": "no_training", "reason": "a test"}
    assert ANN not in repr(entry)
    assert user.id not in repr(entry)


def test_an_export_holds_everything_of_one_user_and_nothing_of_others(
    database: Database, act: Callable[[str], Act]
) -> None:
    at = act("a test")
    at = Act(at.actor, at.reason, at.now, at.keyring.with_texts(True), at.new_id)
    with database.write() as session:
        for number in range(3):
            log(session, at.keyring, f"i{number}")
        log(session, at.keyring, "j", "bob")
        rate(session, at, "i0")
        session.add(sample("i0"))
    found = json.loads("".join(export_user(database, at.keyring, ANN)))
    nobody = json.loads("".join(export_user(database, at.keyring, "nobody")))
    assert (found["user_id"], found["consent"]) == (ANN, "granted")
    assert [row["id"] for row in found["interactions"]] == ["i0", "i1", "i2"]
    first = found["interactions"][0]
    assert (first["input_text"], first["feedback"][0]["text"]) == ("a secret", "well")
    assert first["client"] == {"ip_address": "10.0.0.1", "user_agent": None}
    assert first["training_samples"][0]["input_prompt"] == "a secret"
    assert "enc1:" not in json.dumps(found)
    assert nobody["interactions"] == []


def test_an_export_that_nobody_reads_on_holds_no_connection(
    database: Database, act: Callable[[str], Act], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_export, "BATCH_ROWS", 2)
    at = act("a test")
    with database.write() as session:
        for number in range(5):
            log(session, at.keyring, f"i{number}")
    pieces, told = user_export.export_user(database, at.keyring, ANN), []
    for piece in pieces:
        told.append(piece)
        assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert [row["id"] for row in json.loads("".join(told))["interactions"]] == [
        f"i{number}" for number in range(5)
    ]
