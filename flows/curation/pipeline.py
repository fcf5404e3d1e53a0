"""One pass of curation: new feedback since the watermark → `training_data`.

What was read is remembered as a watermark on the time of feedback, because feedback comes
late and changes: an answer whose praise is withdrawn, or that is corrected afterwards, is
taken out again.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl
from sqlalchemy import Select, select
from sqlmodel import Session, col
from sqlmodel import select as select_rows

from flows.curation import steps
from registry import prompts, review
from registry.clock import Clock, NewId
from registry.db import Database
from registry.interactions import insert_ignoring_duplicates
from registry.models import CurationRun, TrainingData, UserInteraction
from registry.settings import CurationSettings

READ_ROWS = 10_000
IN_CLAUSE_ROWS = 500
OVERLAP = timedelta(minutes=5)
"""Read again behind the watermark: a row may be committed after its own time stamp."""


@dataclass(frozen=True)
class CurationReport:
    """What became of every row: `counts` tells how many were left after each step."""

    workload: str
    watermark: datetime
    counts: dict[str, int]
    num_added: int
    num_withdrawn: int
    by_tool: dict[str, int]
    """New samples by target tool."""
    dry_run: bool


def curate(
    database: Database,
    *,
    workload: str,
    settings: CurationSettings,
    clock: Clock,
    new_id: NewId,
    dry_run: bool = False,
) -> CurationReport:
    """Curate what people said since the last pass. A second pass over the same changes nothing."""
    with database.read() as session:
        since = watermark(session, workload=workload)
        known = set(
            session.exec(
                select_rows(TrainingData.content_hash).where(TrainingData.workload == workload)
            )
        )
        outcome = _process(
            _read(session, workload=workload, since=since),
            known=known,
            held=review.held_back(session, workload=workload),
            settings=settings,
        )
    until = max(filter(None, (outcome.until, since)), default=clock())
    num_withdrawn = 0
    if not dry_run and outcome.seen:
        with database.write() as session:
            num_withdrawn = _store(
                session, outcome, workload=workload, until=until, clock=clock, new_id=new_id
            )
    kept = outcome.kept
    tools = [prompts.nearest_tool(tool) for tool in kept["target_tool"]]
    return CurationReport(
        workload=workload,
        watermark=until,
        counts=outcome.counts,
        num_added=kept.height,
        num_withdrawn=num_withdrawn,
        by_tool={tool: tools.count(tool) for tool in sorted(set(tools))},
        dry_run=dry_run,
    )


def watermark(session: Session, *, workload: str) -> datetime | None:
    """The time of the latest feedback that was curated, None before the first pass."""
    return session.exec(
        select_rows(CurationRun.watermark)
        .where(CurationRun.workload == workload)
        .order_by(col(CurationRun.watermark).desc())
    ).first()


@dataclass(frozen=True)
class _Outcome:
    kept: pl.DataFrame
    seen: list[str]
    """Interactions whose feedback was read."""
    standing: dict[str, str]
    """Content hash of those among them that pass the filters."""
    counts: dict[str, int]
    until: datetime | None


def _read(
    session: Session, *, workload: str, since: datetime | None
) -> Iterator[tuple[pl.DataFrame, datetime]]:
    """Frames of at most `READ_ROWS` rows in the order of feedback, each with its last time."""
    table = UserInteraction
    query: Select[Any] = (
        select(
            col(table.id),
            col(table.input_text),
            col(table.messages),
            col(table.structured_prompt),
            col(table.corrected_output),
            col(table.quality_score),
            col(table.user_feedback),
            col(table.target_tool),
            col(table.language),
            col(table.feedback_at),
        )
        .where(
            col(table.workload) == workload,
            col(table.feedback_at).is_not(None),
            col(table.role) != "shadow",
            col(table.error).is_(None),
        )
        .order_by(col(table.feedback_at), col(table.id))
    )
    if since is not None:
        query = query.where(col(table.feedback_at) > since - OVERLAP)
    result = session.connection().execution_options(yield_per=READ_ROWS).execute(query)
    for rows in result.partitions():
        yield _frame(rows), rows[-1].feedback_at


def _frame(rows: Sequence[Any]) -> pl.DataFrame:
    records = [{name: _text(getattr(row, name)) for name in steps.SCHEMA} for row in rows]
    return pl.DataFrame(records, schema=steps.SCHEMA)


def _text(value: Any) -> Any:
    """JSON as text, and text that UTF-8 can hold."""
    if isinstance(value, list | dict):
        value = json.dumps(value, ensure_ascii=False, sort_keys=True)
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return value


def _process(
    frames: Iterator[tuple[pl.DataFrame, datetime]],
    *,
    known: set[str],
    held: set[str],
    settings: CurationSettings,
) -> _Outcome:
    row_steps = (
        ("not held back for review", steps.drop_held(held)),
        ("with something to learn", steps.with_target),
        ("of enough quality", steps.filter_quality(settings)),
        ("liked or corrected", steps.filter_feedback(settings)),
    )
    counts = dict.fromkeys(["with feedback", *(name for name, _ in row_steps)], 0)
    empty = pl.DataFrame(schema=steps.SCHEMA)
    kept = [steps.with_hashes(steps.with_target(empty))]
    seen: list[str] = []
    until = None
    for frame, last in frames:
        until = last
        counts["with feedback"] += frame.height
        seen += frame["id"].to_list()
        for name, step in row_steps:
            frame = step(frame)
            counts[name] += frame.height
        kept.append(steps.with_hashes(frame))
    liked = pl.concat(kept)
    distinct = steps.drop_exact_duplicates(liked)
    new = steps.drop_known(known)(distinct)
    counts |= {"distinct": distinct.height, "not curated before": new.height}
    return _Outcome(
        kept=steps.with_split(settings)(new),
        seen=seen,
        standing=dict(zip(liked["id"], liked["content_hash"], strict=True)),
        counts=counts,
        until=until,
    )


def _store(
    session: Session,
    outcome: _Outcome,
    *,
    workload: str,
    until: datetime,
    clock: Clock,
    new_id: NewId,
) -> int:
    """Write the new samples and the watermark; the number of samples withdrawn."""
    now = clock()
    withdrawn = _review_earlier(session, outcome)
    rows = [
        {
            "id": new_id(),
            "workload": workload,
            "source_interaction_id": row["id"],
            "input_prompt": _input_prompt(row),
            "target_output": row["target"],
            "messages": json.loads(row["messages"]) if row["messages"] else None,
            "source": row["source"],
            "quality_score": row["quality_score"],
            "domain_category": prompts.nearest_tool(row["target_tool"]),
            "language": row["language"],
            "content_hash": row["content_hash"],
            "cluster_id": row["cluster_id"],
            "split": row["split"],
            "is_curated": True,
            "is_selected": True,
            "created_at": now,
        }
        for row in outcome.kept.iter_rows(named=True)
    ]
    insert_ignoring_duplicates(session, TrainingData, rows)
    session.add(
        CurationRun(
            id=new_id(),
            workload=workload,
            watermark=until,
            counts=outcome.counts | {"withdrawn": withdrawn},
            created_at=now,
        )
    )
    return withdrawn


def _review_earlier(session: Session, outcome: _Outcome) -> int:
    """Unselect samples whose interaction no longer stands by them; select those that do again."""
    withdrawn = 0
    for start in range(0, len(outcome.seen), IN_CLAUSE_ROWS):
        chunk = outcome.seen[start : start + IN_CLAUSE_ROWS]
        for sample in session.exec(
            select_rows(TrainingData).where(col(TrainingData.source_interaction_id).in_(chunk))
        ):
            stands = outcome.standing.get(sample.source_interaction_id) == sample.content_hash
            withdrawn += sample.is_selected and not stands
            sample.is_selected = stands
            sample.rejection_reason = None if stands else "feedback changed"
            session.add(sample)
    session.flush()
    return withdrawn


def _input_prompt(row: dict[str, Any]) -> str:
    if row["messages"]:
        return str(row["input_text"])
    return prompts.instruction(
        row["input_text"], target_tool=row["target_tool"], language=row["language"]
    )
