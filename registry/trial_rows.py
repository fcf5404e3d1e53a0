"""Every answer of an experiment as one frame; what a look has read is kept for the next.

A look at a trial needs all its answers, and most of them were there at the last look. So what
was read is kept beside the experiment, and only what has come or was rated since is read from
the rows themselves. A look first keeps what is there: two counts, which an index alone answers,
tell whether that is all, and where it is not (rows that came late or went) everything is read
again.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import polars as pl
from sqlalchemy import ColumnElement, and_, delete, func, or_
from sqlalchemy import select as select_columns
from sqlmodel import Session, col, select

from registry.db import Database
from registry.inserting import insert_ignoring_duplicates
from registry.models import Erasure, Experiment, TrialRows, UserInteraction
from registry.reading import MOMENT

ROWS = pl.Schema(
    {
        "id": pl.UInt64(),
        "unit": pl.UInt64(),
        "role": pl.Enum(["default", "champion", "challenger", "shadow"]),
        "version": pl.Categorical(),
        "created_at": MOMENT,
        "feedback_at": MOMENT,
        "thumb": pl.Int64(),
        "failed": pl.Boolean(),
        "quality": pl.Float64(),
        "latency_ms": pl.Float64(),
    }
)
"""`unit`: the user, else the session, else the answer alone, which the assignment sticks to.

Both as numbers (`number_of`).
"""
PRIORS = pl.Schema(
    {
        "unit": pl.UInt64(),
        "quality": pl.Float64(),
        "scored": pl.Int64(),
        "positive": pl.Int64(),
        "rated": pl.Int64(),
    }
)
OVERLAP = timedelta(minutes=10)
"""Read again before the last moment seen: what was being written then had not shown yet."""


@dataclass(frozen=True)
class TrialData:
    """What an experiment's statistics are made of."""

    rows: pl.DataFrame
    """As `ROWS`, in the order they were given."""
    priors: pl.DataFrame
    """As `PRIORS`: what people's answers of before came to."""


def read(session: Session, experiment: Experiment, *, prior_days: int) -> TrialData:
    """All answers of an experiment, and what those of the `prior_days` before it came to.

    Of what was kept, with what is newer.
    """
    row = session.get(TrialRows, experiment.id)
    rows = None if row is None else _decoded(row.answers, ROWS)
    priors = None
    if row is not None and row.prior_days == prior_days:
        priors = _decoded(row.priors, PRIORS)
    return TrialData(
        rows=_all_rows(session, experiment.id, rows),
        priors=_priors(session, experiment, prior_days) if priors is None else priors,
    )


def keep(database: Database, experiment: Experiment, *, prior_days: int) -> None:
    """Keep what is there now for the looks to come, and nothing of experiments that have ended."""
    with database.read() as session:  # nobody waits while it is read
        found = read(session, experiment, prior_days=prior_days)
        of_it = col(UserInteraction.experiment_id) == experiment.id
        rows, erasures = found.rows, _erasures(session)
        if (rows.height, rows["feedback_at"].count()) != _counts(session, of_it):
            found = replace(found, rows=_fetched(session, of_it))
    with database.write() as session:
        running = select(Experiment.id).where(Experiment.status == "running")
        others = col(TrialRows.experiment_id).not_in(running)
        session.connection().execute(
            delete(TrialRows).where(others | (col(TrialRows.experiment_id) == experiment.id))
        )
        runs_on = session.exec(running.where(Experiment.id == experiment.id)).first() is not None
        # Who was being erased in between must not come back by what was read before.
        if runs_on and erasures[0] == erasures[1] and erasures == _erasures(session):
            row = as_kept(experiment, found, prior_days=prior_days)
            insert_ignoring_duplicates(session, TrialRows, [row])  # two may look at once


def as_kept(experiment: Experiment, found: TrialData, *, prior_days: int) -> dict[str, object]:
    """The row of `TrialRows` that keeps what was found."""
    return {
        "experiment_id": experiment.id,
        "answers": _encoded(found.rows),
        "prior_days": prior_days,
        "priors": _encoded(found.priors),
    }


def forget(session: Session, interaction_ids: Sequence[str]) -> None:
    """Keep nothing any more for experiments of the workloads of these interactions, which go now.

    All is read again from the rows that are left.
    """
    workloads = select(UserInteraction.workload).where(col(UserInteraction.id).in_(interaction_ids))
    touched = select(Experiment.id).where(col(Experiment.workload).in_(workloads))
    session.connection().execute(delete(TrialRows).where(col(TrialRows.experiment_id).in_(touched)))


def _all_rows(session: Session, experiment_id: str, known: pl.DataFrame | None) -> pl.DataFrame:
    of_it = col(UserInteraction.experiment_id) == experiment_id
    if known is None or known.is_empty():
        return _fetched(session, of_it)
    since = _last_moment(known) - OVERLAP
    # In each half for itself, so that each is found by an index of its own.
    is_new = and_(of_it, col(UserInteraction.created_at) > since)
    is_newly_rated = and_(of_it, col(UserInteraction.feedback_at) > since)
    fresh = _fetched(session, or_(is_new, is_newly_rated))
    rows = pl.concat([known.filter(~pl.col("id").is_in(fresh["id"].implode())), fresh])
    return rows.sort("created_at", "id")


def _counts(session: Session, of_it: ColumnElement[bool]) -> tuple[int, int]:
    """Of all answers, and of those rated."""
    is_rated = col(UserInteraction.feedback_at).is_not(None)
    total, rated = (
        select_columns(func.count()).select_from(UserInteraction).where(of_it, *also)
        for also in ((), (is_rated,))
    )
    query = select_columns(total.scalar_subquery(), rated.scalar_subquery())
    num, num_rated = session.connection().execute(query).tuples().one()
    return num, num_rated


def _erasures(session: Session) -> tuple[int, int]:
    """How many were begun, and how many completed."""
    query = select_columns(func.count(), func.count(col(Erasure.completed_at))).select_from(Erasure)
    begun, completed = session.connection().execute(query).tuples().one()
    return begun, completed


def _last_moment(rows: pl.DataFrame) -> datetime:
    last = rows.select(pl.max_horizontal(pl.col("created_at", "feedback_at").max())).item()
    assert isinstance(last, datetime)
    return last


def number_of(name: str) -> int:
    """Eight bytes of its hash: frames of numbers are small, and quick to join."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())


def _unit_of_answer() -> ColumnElement[str]:
    return func.coalesce(
        col(UserInteraction.user_id), col(UserInteraction.session_id), col(UserInteraction.id)
    )


def _fetched(session: Session, condition: ColumnElement[bool]) -> pl.DataFrame:
    query = select_columns(
        col(UserInteraction.id),
        _unit_of_answer(),
        col(UserInteraction.role),
        col(UserInteraction.model_version),
        col(UserInteraction.created_at),
        col(UserInteraction.feedback_at),
        col(UserInteraction.user_feedback),
        col(UserInteraction.error).is_not(None),
        col(UserInteraction.quality_score),
        col(UserInteraction.processing_time_ms),
    ).where(condition)
    found = session.connection().execute(query).tuples()
    rows = [(number_of(name), number_of(unit), *others) for name, unit, *others in found]
    return pl.DataFrame(rows, schema=ROWS, orient="row").sort("created_at", "id")


def _priors(session: Session, experiment: Experiment, days: int) -> pl.DataFrame:
    """Of everybody in the `days` before the experiment, as it was known when that began.

    What is said later of an answer of before may hang on the experiment, and counts for nothing.
    """
    if not days:
        return PRIORS.to_frame()
    begun = experiment.started_at
    quality, thumb = col(UserInteraction.quality_score), col(UserInteraction.user_feedback)
    was_rated = col(UserInteraction.feedback_at) < begun
    unit = _unit_of_answer().label("unit")
    query = (
        select_columns(
            unit,
            func.coalesce(func.sum(quality), 0.0),
            func.count(quality),
            func.count(thumb).filter(was_rated, thumb == 1),
            func.count(thumb).filter(was_rated),
        )
        .where(
            col(UserInteraction.workload) == experiment.workload,
            col(UserInteraction.created_at) >= begun - timedelta(days=days),
            col(UserInteraction.created_at) < begun,
            col(UserInteraction.role) != "shadow",
            col(UserInteraction.error).is_(None),
        )
        .group_by(unit)
    )
    found = session.connection().execute(query).tuples()
    sums = [(number_of(who), *others) for who, *others in found]
    return pl.DataFrame(sums, schema=PRIORS, orient="row").sort("unit")


def _encoded(frame: pl.DataFrame) -> bytes:
    into = io.BytesIO()
    frame.write_ipc(into, compression="zstd")
    return into.getvalue()


def _decoded(stored: bytes, schema: pl.Schema) -> pl.DataFrame | None:
    """None where an earlier code kept other columns."""
    frame = pl.read_ipc(io.BytesIO(stored))
    return frame if frame.schema == schema else None
