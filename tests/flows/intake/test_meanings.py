"""What a row means is said or known, never guessed."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from flows.context import Context
from flows.errors import UnreadableFileError
from tests.flows.intake.conftest import CHAT, GOOD, Run, events, jsonl, refused, stored

pytestmark = pytest.mark.both_databases


def test_a_quote_that_is_not_closed_gives_nobody_the_text_of_others(
    run: Run, context: Context, tmp_path: Path
) -> None:
    path = tmp_path / "log.csv"
    path.write_text(
        'user_id,question,answer\nanna,q1,"open quote\nben,q2,"secret of ben"\n'
        'carl,q3,"two\nlines"\ndora,q4,"cut o'
    )
    report = run(path)
    assert (report.read, report.imported, report.refused) == (4, 2, 2)
    said = {row.input_text: row.model_output for row in stored(context)}
    assert said == {"q2": "secret of ben", "q3": "two\nlines"}
    assert [row["row"] for row in refused(tmp_path)] == [2, 6]


@pytest.mark.parametrize("name", ["score", "thumb"])
def test_what_a_rating_means_is_said_and_not_guessed(
    run: Run, context: Context, tmp_path: Path, name: str
) -> None:
    path = jsonl(tmp_path / "log.jsonl", GOOD | {"rating": 1})
    with pytest.raises(UnreadableFileError, match="may be a score from 1 to 5 or a thumb"):
        run(path)
    beside = jsonl(tmp_path / "beside.jsonl", GOOD | {"id": "y", "rating": 1, "thumb": 1})
    assert (run(beside).imported, events(context)[0].thumb) == (1, 1)
    later = jsonl(tmp_path / "later.jsonl", GOOD, GOOD | {"id": "x", "rating": 1})
    assert run(later).refused == 1
    run(path, mapping={name: "rating"})
    _, event = events(context)
    assert event.thumb == (1 if name == "thumb" else -1)
    run(path, mapping={"feedback_text": "rating"})


def test_a_column_that_was_named_wins_over_what_the_format_says(
    run: Run, context: Context, tmp_path: Path
) -> None:
    row = {
        "request": {"messages": CHAT[:1], "user": "tenant"},
        "response": {"choices": [{"message": CHAT[1]}], "created": 1_700_000_000},
        "meta": {"customer": "ann"},
    }
    run(jsonl(tmp_path / "log.jsonl", row), mapping={"user_id": "meta.customer"})
    (found,) = stored(context)
    assert found.user_id == context.keyring.pseudonym("ann")
    assert found.created_at.year == 2023


@pytest.mark.parametrize("value", [45671.5, 45671, 20250114, "2025"])
def test_a_number_that_is_no_time_is_not_of_1970(
    run: Run, tmp_path: Path, value: float | str
) -> None:
    report = run(jsonl(tmp_path / "log.jsonl", GOOD, GOOD | {"created_at": value}))
    assert (report.imported, report.refused) == (1, 1)


def test_bytes_that_are_cut_are_told_in_any_encoding(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes("question;answer\nq;a\nq2;a2".encode("utf-16-le") + b"x")
    report = run(path, encoding="utf-16-le")
    assert (report.imported, report.refused) == (1, 1)


def test_what_stands_beside_a_request_belongs_to_it(
    run: Run, context: Context, tmp_path: Path
) -> None:
    alpaca = {"instruction": "Translate to French", "input": "Good morning", "output": "Bonjour"}
    run(jsonl(tmp_path / "alpaca.jsonl", alpaca, alpaca | {"input": ""}))
    assert {row.input_text for row in stored(context)} == {
        "Translate to French\n\nGood morning",
        "Translate to French",
    }
    turns = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]
    run(jsonl(tmp_path / "share.jsonl", {"conversations": turns, "system": "Be brief"}))
    odd = GOOD | {"messages": {"a": 1}, "system": "Be brief", "input": "x"}
    assert run(jsonl(tmp_path / "odd.jsonl", GOOD, odd)).refused == 1
    (chat,) = [row for row in stored(context) if row.messages]
    assert [turn["content"] for turn in chat.messages] == ["Be brief", "hi"]


def test_a_mapping_looks_into_the_columns_of_parquet(
    run: Run, context: Context, tmp_path: Path
) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame({"conv": [{"q": {"t": "Why?"}}], "ans": ["So"]}).write_parquet(path)
    run(path, mapping={"input_text": "conv.q.t", "model_output": "ans"})
    assert [row.input_text for row in stored(context)] == ["Why?"]
    with pytest.raises(UnreadableFileError, match=r"--map input_text=cnv\.q: The file has: conv"):
        run(path, mapping={"input_text": "cnv.q", "model_output": "ans"})


def test_what_stands_where_a_chat_should_is_refused_alone(run: Run, tmp_path: Path) -> None:
    chat = {"messages": CHAT}
    path = jsonl(tmp_path / "log.jsonl", chat, {"messages": 5}, {"messages": "x"})
    for nature in ("prompts", "chat"):
        report = run(path, format="chatml", nature=nature)
        assert (report.read, report.refused) == (3, 2)
    usage = jsonl(tmp_path / "usage.jsonl", GOOD, {"messages": 5, "model_output": "a"})
    assert run(usage, format="usage", nature="prompts").refused == 1


@pytest.mark.timeout(60)
def test_marks_without_end_take_no_longer_than_they_are_long(
    run: Run, context: Context, tmp_path: Path
) -> None:
    chat = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>"
    path = jsonl(tmp_path / "log.jsonl", {"text": chat}, {"text": "<|im_start|>a\n" * 200_000})
    assert (run(path).imported, len(refused(tmp_path))) == (1, 1)
    (row,) = stored(context)
    assert (row.input_text, row.model_output) == ("Hi", "Hello")
