"""Importing files: every row once, the others with their reasons, whatever the file holds."""

from __future__ import annotations

import gzip
import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.context import Context
from flows.errors import UnreadableFileError
from flows.intake import readers, rows
from flows.intake.importing import Importer, Request
from registry import erasure
from tests.flows.intake.conftest import CHAT, GOOD, Run, events, jsonl, refused, stored

pytestmark = pytest.mark.both_databases


CHATML = "<|im_start|>user\nWhat is a SNES?<|im_end|>\n<|im_start|>assistant\nA console<|im_end|>\n"


def usage_db(path: Path, *records: tuple[Any, ...]) -> Path:
    """A database as afs.continuous's UsageLogger writes it."""
    connection = sqlite3.connect(path)
    connection.execute(
        "CREATE TABLE usage (id TEXT PRIMARY KEY, timestamp TEXT NOT NULL, query TEXT NOT NULL,"
        " response TEXT NOT NULL, model TEXT NOT NULL, expert TEXT, latency_ms REAL,"
        " token_count INTEGER, quality_score REAL DEFAULT 0.0, user_feedback INTEGER,"
        " feedback_text TEXT, context_hash TEXT, dedupe_hash TEXT,"
        " created_at TEXT DEFAULT CURRENT_TIMESTAMP)"
    )
    connection.executemany(
        "INSERT INTO usage (id, timestamp, query, response, model, latency_ms, token_count,"
        " user_feedback, feedback_text, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [(*record, "2026-01-13 09:00:00") for record in records],
    )
    connection.commit()
    connection.close()
    return path


def test_the_seeds_usage_db_comes_over_with_its_feedback(
    run: Run, context: Context, tmp_path: Path
) -> None:
    path = usage_db(
        tmp_path / "usage.db",
        ("a", "2026-01-13T10:00:00", "What is 65816?", "A CPU", "nayru-v1", 12.5, 2, 1, "good"),
        ("b", "2026-01-13T11:00:00", "Who?", "Nobody", "nayru-v1", 0, 1, -1, None),
        ("c", "2026-01-13T12:00:00", "Xyz", "Nothing", "nayru-v1", 1, 1, None, None),
        ("d", "2026-01-13T12:00:00", "Zyx", "Nothing", "nayru-v1", 1, 1, 7, None),
    )
    report = run(path)
    assert (report.format, report.imported, report.refused, report.feedback) == ("usage", 3, 1, 2)
    assert report.naive_times == 3
    first, second, third = stored(context)
    assert first.messages == [{"role": "user", "content": "What is 65816?"}]
    assert (first.source, first.external_model, first.model_version) == (
        "imported",
        "nayru-v1",
        None,
    )
    # `timestamp` is local time without a zone; `created_at` is SQLite's, in UTC.
    assert first.created_at == datetime(2026, 1, 13, 9, tzinfo=UTC)
    assert (first.processing_time_ms, second.processing_time_ms) == (12.5, None)
    assert (first.user_feedback, first.feedback_text) == (1, "good")
    assert (second.user_feedback, third.user_feedback) == (-1, None)
    # Curation reads by the time at which feedback was learned of.
    assert first.feedback_at == context.clock()
    assert refused(tmp_path)[0]["field"] == "feedback.thumb"


def test_openai_logs_of_several_proxies_come_over(
    run: Run, context: Context, tmp_path: Path
) -> None:
    response = {
        "id": "chatcmpl-1",
        "created": 1767225600,
        "model": "gpt-x",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "A console"}}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2},
    }
    request = {"model": "gpt-x", "user": "u", "messages": CHAT[:1]}
    report = run(
        jsonl(
            tmp_path / "log.jsonl",
            {"request": request, "response": response, "latency_ms": 20},
            {"messages": CHAT[:1], **response, "id": "chatcmpl-2"},
            {"body": request, "response": {"status_code": 200, "body": response | {"id": "3"}}},
            {"messages": json.dumps(CHAT[:1]), "response": json.dumps(response | {"id": "4"})},
            {"request": request, "response": {"choices": [{"message": {"tool_calls": []}}]}},
            {"request": request, "response": {"error": "overloaded"}},
        )
    )
    assert (report.format, report.imported, report.refused) == ("openai", 4, 2)
    row = next(row for row in stored(context) if row.processing_time_ms == 20)
    assert (row.model_output, row.input_text, row.messages) == (
        "A console",
        "What is a SNES?",
        CHAT[:1],
    )
    assert (row.tokens_input, row.tokens_output, row.external_model) == (5, 2, "gpt-x")
    assert row.created_at == datetime(2026, 1, 1, tzinfo=UTC)
    assert row.user_id == context.keyring.pseudonym("u")


@pytest.mark.parametrize(
    "value",
    [
        {"messages": CHAT},
        {
            "conversations": [
                {"from": "human", "value": "What is a SNES?"},
                {"from": "gpt", "value": "A console"},
            ]
        },
        {"text": CHATML},
    ],
)
def test_the_last_message_of_a_fine_tuning_file_is_the_answer(
    run: Run, context: Context, tmp_path: Path, value: Any
) -> None:
    assert run(jsonl(tmp_path / "train.jsonl", value)).format == "chatml"
    (row,) = stored(context)
    assert (row.messages, row.model_output) == (CHAT[:1], "A console")


def test_columns_are_known_by_name_or_by_mapping(
    run: Run, context: Context, tmp_path: Path
) -> None:
    path = tmp_path / "export.csv"
    path.write_bytes(
        "\ufefffrage;antwort;sterne;wann\r\n"
        '"Zwei\nZeilen; und ""mehr""";Ja;4;2026-01-01 10:00+02:00\r\n'
        "Eins;Nein;2;1767225600000\r\n".encode()
    )
    mapping = {
        "input_text": "frage",
        "model_output": "antwort",
        "score": "sterne",
        "created_at": "wann",
    }
    report = run(path, mapping=mapping)
    assert (report.format, report.nature, report.imported) == ("columns", "prompts", 2)
    one, two = stored(context)
    assert two.input_text == 'Zwei\nZeilen; und "mehr"'
    assert (one.user_feedback, two.user_feedback) == (-1, 1)
    assert one.created_at == datetime(2026, 1, 1, tzinfo=UTC)
    assert two.created_at == datetime(2026, 1, 1, 8, tzinfo=UTC)
    assert (one.messages, one.structured_prompt) == (None, "Nein")


def test_parquet_with_nested_messages_comes_over(
    run: Run, context: Context, tmp_path: Path
) -> None:
    path = tmp_path / "data.bin"
    turns = [CHAT, [*CHAT[:1], {"role": "assistant", "content": "Other", "name": "x"}]]
    pl.DataFrame({"messages": turns, "rating": [5, None]}).write_parquet(path)
    report = run(path, mapping={"score": "rating"})
    assert (report.format, report.imported, report.feedback) == ("chatml", 2, 1)
    assert {row.model_output for row in stored(context)} == {"A console", "Other"}
    assert all(row.messages == CHAT[:1] for row in stored(context))


def test_a_second_run_changes_nothing_and_late_feedback_is_added_once(
    run: Run, context: Context, tmp_path: Path
) -> None:
    items = [GOOD | {"id": n, "input_text": f"text {n}"} for n in range(1200)]
    path = jsonl(tmp_path / "log.jsonl", *items, items[0])
    first = run(path)
    assert (first.read, first.imported, first.known) == (1201, 1200, 1)
    again = run(path)
    assert (again.imported, again.known, again.feedback) == (0, 1201, 0)
    items[5] |= {"feedback_score": 5}
    for _ in range(2):
        late = run(jsonl(path, *items))
    assert (late.imported, len(events(context))) == (0, 1)
    assert len(stored(context)) == 1200


def test_a_log_that_only_grows_tells_the_rating_of_a_row_later(
    run: Run, context: Context, tmp_path: Path
) -> None:
    rated = [GOOD | {"id": n, "feedback_score": 5} for n in range(3)]
    path = jsonl(tmp_path / "log.jsonl", *(GOOD | {"id": n} for n in range(3)), *rated, rated[0])
    report = run(path)
    assert (report.imported, report.known, report.feedback) == (3, 4, 3)
    assert len(events(context)) == 3
    assert run(path).feedback == 0


def test_an_interrupted_run_is_taken_up_where_it_ended(
    context: Context, tmp_path: Path, run: Run
) -> None:
    path = jsonl(tmp_path / "log.jsonl", *(GOOD | {"id": n} for n in range(1300)))
    request = Request(path=path, workload="default", refused_path=tmp_path / "r")
    done: list[int] = []

    def stop(position: int) -> None:
        done.append(position)
        if len(done) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Importer(context, request).run(stop)
    assert len(stored(context)) == 1000
    assert run(path).imported == 300


def test_what_an_erased_user_asked_is_left_out_and_counted(
    run: Run, context: Context, tmp_path: Path
) -> None:
    with context.database.write() as session:
        act = context.act("test", "asked for it")
        erasure.begin(session, act, "anna", approved_by="test", policy="list")
    asked = [GOOD | {"id": name, "user_id": name} for name in ("anna", "ben")]
    report = run(jsonl(tmp_path / "log.jsonl", *asked))
    assert (report.imported, report.erased, len(stored(context))) == (1, 1, 1)


def test_a_dry_run_writes_nothing(run: Run, context: Context, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "log.jsonl", GOOD | {"feedback_score": 5})
    report = run(path, dry_run=True)
    assert (report.imported, report.feedback) == (1, 1)
    assert stored(context) == []


def test_a_dry_run_tells_what_a_run_then_does(run: Run, tmp_path: Path) -> None:
    """Rows are told again in later batches, some with feedback only then."""
    asked = [GOOD | {"id": n} for n in range(600)]
    rated = [row | {"feedback_score": 4} for row in asked[::2]]
    path = jsonl(tmp_path / "log.jsonl", *asked, *rated, *rated, *asked)
    rehearsed, done = run(path, dry_run=True), run(path)
    assert rehearsed == done
    assert (done.imported, done.known, done.feedback) == (600, 1200, 300)


def test_only_a_run_that_refuses_leaves_a_file_of_what_it_refused(run: Run, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "log.jsonl", GOOD, {"a": 1})
    assert run(path).refused == len(refused(tmp_path)) == 1
    jsonl(path, GOOD)
    assert run(path).refused == 0
    assert list(tmp_path.glob("refused*")) == []


def test_where_the_refused_go_is_known_before_anything_is_written(
    context: Context, tmp_path: Path
) -> None:
    path = jsonl(tmp_path / "log.jsonl", GOOD)
    said = path.read_bytes()
    with pytest.raises(UnreadableFileError, match="name another file"):
        Importer(context, Request(path=path, workload="default", refused_path=path))
    importer = Importer(context, Request(path=path, workload="default", refused_path=tmp_path))
    with pytest.raises(IsADirectoryError):
        importer.run()
    assert path.read_bytes() == said
    assert stored(context) == []


HOSTILE: list[tuple[str | bytes, str]] = [
    (json.dumps(GOOD | {"input_text": "nul\0"}), "NUL"),
    (json.dumps(GOOD | {"model_output": "\ud800"}), "surrogate"),
    (json.dumps(GOOD | {"tokens_input": -1}), "greater than or equal to 0"),
    (json.dumps(GOOD | {"tokens_input": "many"}), "valid integer"),
    (json.dumps(GOOD | {"processing_time_ms": "nan"}), "finite"),
    (json.dumps(GOOD | {"created_at": "2999-01-01"}), "future"),
    (json.dumps(GOOD | {"created_at": "01/02/2024"}), "ISO 8601"),
    (json.dumps(GOOD | {"created_at": 1e300}), "ISO 8601"),
    (json.dumps(GOOD | {"created_at": "1711-11-13T00:00+14:00"}), "before 1970"),
    (json.dumps(GOOD | {"feedback_score": 9}), "less than or equal to 5"),
    (json.dumps(GOOD | {"feedback_score": 3.5}), "valid integer"),
    (json.dumps(GOOD | {"thumb": "maybe"}), "valid integer"),
    (json.dumps(GOOD | {"model_output": " "}), "blank"),
    (json.dumps(GOOD | {"messages": "hello"}), "list"),
    (json.dumps(GOOD | {"messages": [{"role": "user", "content": ["a"]}]}), "valid string"),
    (json.dumps(GOOD | {"tokens_output": 1_000_000_001}), "less than or equal to 1000000000"),
    (json.dumps(GOOD | {"user_id": {"a": 1}}), "valid string"),
    (json.dumps({"a": 1}), "either input_text or messages"),
    ('{"input_text": "' + "x" * (rows.MAX_ROW_CHARS + 1) + '"}', "longer than"),
    ('{"input_text": "' + "x" * 200_001 + '", "model_output": "a"}', "at most 200000"),
    ("[" * 100_000, "no JSON"),
    ('{"messages": ' + "[" * 500 + "]" * 500 + "}", "nested"),
    ('{"tokens_input": ' + "9" * 5000 + "}", "no JSON"),
    ("[1, 2]", "no JSON object"),
    ('{"a": 1', "no JSON"),
    (b'{"input_text": "caf\xe9", "model_output": "a"}', "encoding"),
]


def test_each_hostile_row_is_refused_alone_and_told_by_its_line(
    run: Run, context: Context, tmp_path: Path
) -> None:
    assert HOSTILE
    lines = [line if isinstance(line, bytes) else line.encode() for line, _ in HOSTILE]
    good = json.dumps(GOOD).encode()
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + good + b"\r\n\n" + b"\n".join(lines) + b"\n" + good)
    report = run(path)
    told = refused(tmp_path)
    assert [entry["row"] for entry in told] == list(range(3, 3 + len(lines)))
    for entry, (_, reason) in zip(told, HOSTILE, strict=True):
        assert reason in entry["reason"], entry
    assert (report.imported, report.known, report.refused) == (1, 1, len(lines))
    assert len(stored(context)) == 1


def test_damaged_rows_of_csv_are_refused_and_the_next_ones_read(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "MAX_ROW_CHARS", 100)
    path = tmp_path / "export.csv"
    path.write_bytes(
        b"input_text,model_output\na,b\nonly one\n1,2,3\nno,utf-8 \xe9\n"
        + b"x" * 500
        + b",y\nnul,\0\nc,d\n"
    )
    report = run(path)
    assert (report.imported, report.refused) == (2, 5)
    reasons = [entry["reason"] for entry in refused(tmp_path)]
    assert "1 columns" in reasons[0]
    assert "3 columns" in reasons[1]
    assert "encoding" in reasons[2]
    assert "longer than" in reasons[3]
    assert "NUL" in reasons[4]


def test_other_encodings_are_read_when_they_are_named(
    run: Run, context: Context, tmp_path: Path
) -> None:
    text = "input_text\tmodel_output\ncafé\tdéjà vu\n"
    (tmp_path / "a.csv").write_bytes(text.encode("cp1252"))
    (tmp_path / "b.csv").write_bytes(text.replace("café", "thé").encode("utf-16"))
    assert run(tmp_path / "a.csv", encoding="cp1252").imported == 1
    assert run(tmp_path / "b.csv").imported == 1
    assert [row.input_text for row in stored(context)] == ["café", "thé"]


def test_a_damaged_archive_is_read_up_to_the_damage(run: Run, tmp_path: Path) -> None:
    lines = "".join(
        json.dumps(GOOD | {"id": n, "input_text": f"{n * 7919}"}) + "\n" for n in range(3000)
    )
    path = tmp_path / "log.jsonl.gz"
    path.write_bytes(gzip.compress(lines.encode()))
    assert run(path, dry_run=True).imported == 3000
    path.write_bytes(path.read_bytes()[:-2000])
    report = run(path)
    assert 0 < report.imported < 3000
    assert "damaged" in refused(tmp_path)[-1]["reason"]


UNREADABLE: list[tuple[bytes, str]] = [
    (b"", "is empty"),
    (b" \n\n", "nothing in it"),
    (b"hello", "neither JSONL"),
    (b"\x89PNG\r\n\x1a\n\0\0", "neither JSONL"),
    (b'[{"a": 1}]', "jq -c"),
    (b"{\n\n}\n", "nothing that can be imported"),
    (b"PAR1 and no more", "as Parquet"),
    (b"SQLite format 3\0 and no more", "as SQLite"),
    (b"\x1f\x8b and no more", "cannot read"),
    (b"frage,antwort\na,b\n", "The file has: frage, antwort. Say which: --map input_text="),
    (b"input_text,model_output\n", "there are no rows in it"),
]


def test_a_file_that_cannot_be_used_is_one_line_that_says_what_to_do(
    run: Run, tmp_path: Path
) -> None:
    assert UNREADABLE
    for content, complaint in UNREADABLE:
        path = tmp_path / "file"
        path.write_bytes(content)
        with pytest.raises(UnreadableFileError) as error:
            run(path)
        assert complaint in str(error.value), content
        assert "\n" not in str(error.value)
    with pytest.raises(UnreadableFileError, match="No such file"):
        run(tmp_path / "nowhere")
    with pytest.raises(UnreadableFileError, match="Is a directory"):
        run(tmp_path)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UnreadableFileError, match="The file has: a, b"):
        run(path, mapping={"input_text": "c"})
    with pytest.raises(UnreadableFileError, match="there is no field colour"):
        run(path, mapping={"colour": "a"})
    connection = sqlite3.connect(tmp_path / "other.db")
    connection.execute("CREATE TABLE cars (id)")
    connection.close()
    with pytest.raises(UnreadableFileError, match="it has: cars"):
        run(tmp_path / "other.db")
