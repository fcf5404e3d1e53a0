"""Columns of values become rows, on both databases, as one row at a time would."""

from __future__ import annotations

from sqlalchemy import event, text
from sqlmodel import col, select

from registry.db import Database
from registry.inserting import insert_columns, insert_ignoring_duplicates
from registry.models import CuratedSignature, TrainingData, User, UserInteraction
from tests.registry.conftest import NOW


def asked(database: Database, number: int) -> list[str]:
    """Interactions to make samples of."""
    names = [f"i{place}" for place in range(number)]
    with database.write() as session:
        for name in names:
            session.add(
                UserInteraction(
                    id=name,
                    workload="default",
                    input_text="a",
                    structured_prompt="b",
                    model_output="b",
                    created_at=NOW,
                    updated_at=NOW,
                )
            )
    return names


def test_lists_and_single_values_become_rows(database: Database) -> None:
    names = asked(database, 2)
    turns = [{"role": "user", "content": "سؤال “100 %”"}]
    columns = {
        "id": ["s0", "s1"],
        "created_at": NOW,
        "label": [None, False],
        "messages": [turns, None],
        "quality_score": [0.5, None],
        "is_selected": True,
        "workload": "default",
        "source_interaction_id": names,
        "input_prompt": ["a", "b"],
        "target_output": ["c", "d"],
        "source": "accepted",
        "content_hash": ["1", "2"],
        "cluster_id": "c",
        "split": "train",
    }
    signatures = {
        "training_data_id": ["s0"],
        "workload": "default",
        "signature": [bytes(range(128))],
        "request_signature": [None],
    }
    with database.write(bulk=True) as session:
        insert_columns(session, TrainingData, columns, num_rows=2)
        insert_columns(session, CuratedSignature, signatures, num_rows=1)
        insert_columns(session, CuratedSignature, {key: [] for key in signatures}, num_rows=0)
    with database.read() as session:
        first, second = session.exec(select(TrainingData).order_by(col(TrainingData.id)))
        signed = session.exec(select(CuratedSignature)).one()
    assert (first.messages, first.label, first.quality_score) == (turns, None, 0.5)
    assert (second.messages, second.label, second.quality_score) == (None, False, None)
    assert first.created_at == NOW
    assert first.is_selected is True
    assert first.is_curated is False
    assert second.input_prompt == "b"
    assert (signed.signature, signed.request_signature) == (bytes(range(128)), None)


def test_a_bulk_transaction_gives_its_memory_back(database: Database) -> None:
    if database.engine.dialect.name != "sqlite":
        return
    with database.write() as session:
        usual = session.connection().execute(text("PRAGMA cache_size")).scalar_one()
    with database.write(bulk=True) as session:
        assert session.connection().execute(text("PRAGMA cache_size")).scalar_one() == -65536
    with database.write() as session:
        assert session.connection().execute(text("PRAGMA cache_size")).scalar_one() == usual


def test_what_is_there_already_is_left_out_and_not_counted(database: Database) -> None:
    users = [
        {"id": name, "external_id_encrypted": name, "created_at": NOW} for name in ("a", "b", "c")
    ]
    for rows, number in ((users[:1], 1), (users[:1], 0), (users, 2), ([], 0)):
        with database.write() as session:
            assert insert_ignoring_duplicates(session, User, rows) == number


def test_many_rows_are_one_statement(database: Database) -> None:
    users = [
        {"id": f"u{number}", "external_id_encrypted": "x", "created_at": NOW}
        for number in range(50)
    ]
    statements: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *told: statements.append(told[2]))
    with database.write() as session:
        assert insert_ignoring_duplicates(session, User, users) == 50
    assert sum("users" in statement for statement in statements) == 1
