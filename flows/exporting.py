"""Interactions, feedback and datasets as files that `datasets.load_dataset` reads.

Rows are streamed: a file holds at most `ROWS_A_FILE`, and that is what is in memory at a time.
People are pseudonyms, sessions too; those who opted out of training are left out unless asked
for. A README.md in the folder tells `load_dataset` the types, so that a column that begins
with nothing is read as what it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count, islice
from pathlib import Path
from typing import Any, Literal

import polars as pl
from sqlalchemy import ColumnElement, select
from sqlmodel import Session, col

from flows.context import Context
from flows.curation.splitting import OF_FILE, SIDES
from flows.errors import ExportError
from registry import texts
from registry.folders import whole_folder
from registry.models import Dataset, FeedbackEvent, TrainingData, UserInteraction
from registry.privacy import may_be_learned

Format = Literal["parquet", "jsonl"]
ROWS_A_FILE = 20_000
READ_ROWS = 2_000

Schema = dict[str, pl.DataType | type[pl.DataType]]
TIME = pl.Datetime("us", "UTC")
INTERACTIONS: Schema = {
    "id": pl.String,
    "workload": pl.String,
    "created_at": TIME,
    "user_id": pl.String,
    "session_id": pl.String,
    "input_text": pl.String,
    "messages": pl.String,
    "structured_prompt": pl.String,
    "model_output": pl.String,
    "target_tool": pl.String,
    "language": pl.String,
    "tokens_input": pl.Int64,
    "tokens_output": pl.Int64,
    "processing_time_ms": pl.Float64,
    "queue_ms": pl.Float64,
    "model_version": pl.String,
    "external_model": pl.String,
    "source": pl.String,
    "role": pl.String,
    "experiment_id": pl.String,
    "quality_score": pl.Float64,
    "scorer_version": pl.String,
    "error": pl.String,
    "feedback_score": pl.Int64,
    "user_feedback": pl.Int64,
    "feedback_text": pl.String,
    "corrected_output": pl.String,
    "feedback_at": TIME,
}
FEEDBACK: Schema = {
    "id": pl.String,
    "interaction_id": pl.String,
    "workload": pl.String,
    "user_id": pl.String,
    "model_version": pl.String,
    "created_at": TIME,
    "score": pl.Int64,
    "thumb": pl.Int64,
    "text": pl.String,
    "corrected_output": pl.String,
}
SAMPLES: Schema = {
    "id": pl.String,
    "messages": pl.List(pl.Struct({"role": pl.String, "content": pl.String, "more": pl.String})),
    "target_tool": pl.String,
    "language": pl.String,
    "weight": pl.Float64,
    "source": pl.String,
}


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be exported, and where to."""

    workload: str
    format: Format
    folder: Path
    since: datetime | None = None
    until: datetime | None = None
    include_opted_out: bool = False


def export_interactions(context: Context, wanted: Wanted) -> int:
    """Export who asked what and got which answer, oldest first; the number of rows.

    Shadow answers, which nobody saw, are left out. Raises `ConflictError`, `ExportError`.
    """
    table = UserInteraction
    query = (
        select(*(getattr(table, name) for name in INTERACTIONS))
        .where(col(table.role) != "shadow", *_within(wanted, col(table.created_at)))
        .order_by(col(table.created_at), col(table.id))
    )
    return _export_query(context, wanted, query, INTERACTIONS, table="user_interactions")


def export_feedback(context: Context, wanted: Wanted) -> int:
    """Export every piece of feedback as it was given, oldest first; the number of rows.

    Raises `ConflictError`, `ExportError`.
    """
    event, table = FeedbackEvent, UserInteraction
    of_interaction = {"workload", "user_id", "model_version"}
    query = (
        select(*(getattr(table if name in of_interaction else event, name) for name in FEEDBACK))
        .join(table, col(table.id) == col(event.interaction_id))
        .where(*_within(wanted, col(event.created_at)))
        .order_by(col(event.created_at), col(event.id))
    )
    return _export_query(context, wanted, query, FEEDBACK, table="feedback_events")


def export_dataset(context: Context, wanted: Wanted, *, dataset_id: str | None) -> tuple[int, int]:
    """Export a dataset (default: the workload's latest); rows written, and rows left out.

    Left out is what was erased since, and what comes from people who opted out. Raises
    `ConflictError`, `ExportError`, or `ArtifactError` where its files are gone.
    """
    with context.database.read() as session:
        dataset = _dataset(session, wanted, dataset_id)
    source = context.store.fetch(dataset.digest)
    num_read = 0

    def records(path: Path) -> Iterator[dict[str, Any]]:
        nonlocal num_read
        with path.open(encoding="utf-8") as file, context.database.read() as session:
            while lines := list(islice(file, READ_ROWS)):
                num_read += len(lines)
                yield from _still_there(session, [json.loads(line) for line in lines], wanted)

    with whole_folder(wanted.folder) as partial:
        counts = {
            split: _write(
                map(_sample, records(source / f"{split}.jsonl")),
                partial,
                split,
                SAMPLES,
                wanted.format,
            )
            for split in SIDES
            if (source / f"{split}.jsonl").exists()  # earlier datasets have no test split
        }
        _describe(partial, counts, SAMPLES, wanted.format)
    num_written = sum(counts.values())
    return num_written, num_read - num_written


def _export_query(
    context: Context, wanted: Wanted, query: Any, schema: Schema, *, table: str
) -> int:
    with whole_folder(wanted.folder) as partial, context.database.read() as session:
        result = session.connection().execute(query, execution_options={"yield_per": READ_ROWS})
        with result:
            rows = (_row(context, row, table) for row in result.mappings())
            num_rows = _write(rows, partial, "train", schema, wanted.format)
        _describe(partial, {"train": num_rows}, schema, wanted.format)
    return num_rows


def _within(wanted: Wanted, moment: Any) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = [col(UserInteraction.workload) == wanted.workload]
    if wanted.since is not None:
        found.append(moment >= wanted.since)
    if wanted.until is not None:
        found.append(moment < wanted.until)
    if not wanted.include_opted_out:
        found.append(may_be_learned())
    return found


def _row(context: Context, row: Any, table: str) -> dict[str, Any]:
    """A row as it is exported: unsealed, JSON as text, sessions as pseudonyms."""
    found = texts.unseal_row(table, row, context.keyring)
    if found.get("messages") is not None:
        found["messages"] = json.dumps(found["messages"], ensure_ascii=False)
    if found.get("session_id") is not None:
        found["session_id"] = context.keyring.digest("session", found["session_id"])[:32]
    return found


def _dataset(session: Session, wanted: Wanted, dataset_id: str | None) -> Dataset:
    query = select(Dataset).where(col(Dataset.workload) == wanted.workload)
    if dataset_id is not None:
        query = query.where(col(Dataset.id) == dataset_id)
    query = query.order_by(col(Dataset.created_at).desc(), col(Dataset.id).desc()).limit(1)
    found: Dataset | None = session.scalars(query).first()
    if found is None:
        named = f"no dataset '{dataset_id}'" if dataset_id else "no dataset yet"
        raise ExportError(f"workload '{wanted.workload}' has {named}")
    return found


def _still_there(
    session: Session, records: Sequence[dict[str, Any]], wanted: Wanted
) -> Iterator[dict[str, Any]]:
    """Those records whose sample is still there and may be learned from.

    What was rehearsed from a file of the team's own stays.
    """
    query = (
        select(col(TrainingData.id))
        .join(UserInteraction, col(UserInteraction.id) == col(TrainingData.source_interaction_id))
        .where(col(TrainingData.id).in_([record["id"] for record in records]))
    )
    if not wanted.include_opted_out:
        query = query.where(may_be_learned())
    present = set(session.scalars(query))
    for record in records:
        if record["id"] in present or record["id"].startswith(OF_FILE):
            yield record


def _sample(record: dict[str, Any]) -> dict[str, Any]:
    return {**{name: record.get(name) for name in SAMPLES}, "messages": _messages(record)}


def _messages(record: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for message in record["messages"]:
        content = message.get("content")
        more = {name: value for name, value in message.items() if name not in ("role", "content")}
        found.append(
            {
                "role": message["role"],
                "content": content
                if content is None or isinstance(content, str)
                else json.dumps(content, ensure_ascii=False),
                "more": json.dumps(more, ensure_ascii=False) if more else None,
            }
        )
    return found


def _write(
    rows: Iterable[dict[str, Any]], folder: Path, split: str, schema: Schema, format: Format
) -> int:
    """Write rows as `<split>-<number>.<format>`; the number of rows."""
    remaining, num_rows = iter(rows), 0
    for number in count():
        frame = pl.DataFrame(list(islice(remaining, ROWS_A_FILE)), schema=schema)
        if not frame.height:
            break
        path = folder / f"{split}-{number:05}.{format}"
        if format == "parquet":
            frame.write_parquet(path)
        else:
            frame.with_columns(_iso(schema)).write_ndjson(path)
        num_rows += frame.height
    return num_rows


def _iso(schema: Schema) -> list[pl.Expr]:
    times = [name for name, kind in schema.items() if kind == TIME]
    return [pl.col(name).dt.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00") for name in times]


def _describe(folder: Path, counts: dict[str, int], schema: Schema, format: Format) -> None:
    """A README.md whose head tells `load_dataset` the files and the types.

    `counts`: rows by split. Raises `ExportError` where there is none: it could not be loaded.
    """
    splits = [split for split, num_rows in counts.items() if num_rows]
    if not splits:
        raise ExportError("there is nothing to export")
    told = {
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": name, "path": f"{name}-*.{format}"} for name in splits],
            }
        ],
        "dataset_info": {
            "features": [_feature(name, kind) for name, kind in schema.items()],
        },
    }
    # JSON is YAML, too.
    head = json.dumps(told, indent=1)
    (folder / "README.md").write_text(
        f'---\n{head}\n---\nExported by Kalimtak: load_dataset("<this folder>")\n',
        encoding="utf-8",
    )


def _feature(name: str, kind: Any) -> dict[str, Any]:
    if isinstance(kind, pl.List):
        fields = [_feature(field.name, field.dtype) for field in kind.inner.fields]  # type: ignore[union-attr]
        return {"name": name, "list": fields}
    names = {pl.String: "string", pl.Int64: "int64", pl.Float64: "float64"}
    return {"name": name, "dtype": names.get(kind, "timestamp[us, tz=UTC]")}
