"""One pass of curation: new feedback since the watermark → `training_data`.

What was read is remembered as a watermark on the time of feedback, because feedback comes
late and changes: an answer whose praise is withdrawn, or that is corrected afterwards, is
taken out again. Interactions are read, compared and written in batches, each one transaction
with its watermark: memory is bounded, and a pass that is interrupted goes on where it stopped.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import polars as pl
from sqlmodel import Session, col
from sqlmodel import select as select_rows

from flows.curation import storing
from flows.curation.batch import Batch, compare
from flows.curation.engine import Engine, LocalEngine
from flows.curation.known import KnownSignatures
from flows.curation.past import Past
from flows.curation.reading import Place, last_place, read_batch
from flows.curation.rehearsed import Rehearsed
from flows.curation.rejections import learn_rejections
from flows.curation.rows import Page, RowSteps, Tally
from registry import acts
from registry.clock import Clock, NewId
from registry.crypto import Keyring
from registry.db import Database
from registry.deployment import Act
from registry.models import CurationRun
from registry.settings_curation import CurationSettings

ACTOR = "flow:curate"
READ_ROWS = 20_000
OVERLAP = timedelta(minutes=5)
"""Read again behind the watermark: a row may be committed after its own time stamp."""


@dataclass(frozen=True)
class CurationReport:
    """What became of every row: `counts` tells how many were left after each step."""

    workload: str
    watermark: datetime
    counts: dict[str, int]
    notes: dict[str, int]
    """Rows by what was found in them and done about it."""
    num_added: int
    num_withdrawn: int
    num_held: int
    """Interactions that a reviewer should see first."""
    by_tool: dict[str, int]
    """New samples by domain; of structured prompts, their target tool."""
    by_side: dict[str, int]
    before: Tally
    """Distributions of what was read."""
    after: Tally
    """Distributions of the new samples."""
    dry_run: bool


@dataclass
class _Totals:
    before: Tally = field(default_factory=Tally)
    after: Tally = field(default_factory=Tally)
    sides: Counter[str] = field(default_factory=Counter)
    num_added: int = 0
    num_withdrawn: int = 0
    num_held: int = 0


def curate(
    database: Database,
    *,
    workload: str,
    settings: CurationSettings,
    keyring: Keyring,
    clock: Clock,
    new_id: NewId,
    dry_run: bool = False,
    engine: Engine | None = None,
) -> CurationReport:
    """Curate what people said since the last pass. A second pass over the same changes nothing."""
    engine = engine or LocalEngine()
    with database.read() as session:
        since = watermark(session, workload=workload)
        is_bad = learn_rejections(session, keyring, settings.moderation, workload=workload)
    now, totals, until = clock(), _Totals(), since
    steps = RowSteps(settings, now, is_bad=is_bad)
    reader = _Reader(database, keyring, workload=workload, since=since, rows=settings.batch_rows)
    with ExitStack() as scope:
        signatures = scope.enter_context(closing(KnownSignatures()))
        rehearsed = scope.enter_context(closing(Rehearsed())) if dry_run else None
        following: Iterator[Page] | None = engine.pages(steps, reader.frames())
        while following is not None:
            place, current = reader.place, following
            # These go through the steps, where the engine can, while the current are written.
            following = None if reader.is_at_end else engine.pages(steps, reader.frames())
            pages = list(current)
            if any(page.frame.height for page in pages):
                signatures.read(database, workload=workload)
            with database.read() as session:
                past = Past(
                    session,
                    keyring,
                    workload=workload,
                    signatures=signatures,
                    rehearsed=rehearsed,
                )
                batch = compare(pages, past, settings, engine)
            # A clock that runs ahead elsewhere must not hide what comes in meanwhile.
            until = max(filter(None, (until, place and min(place[0], now))), default=None)
            _count(totals, batch, settings)
            if rehearsed is not None:
                rehearsed.remember(batch.kept)
                signatures.add(batch.kept["content_hash"], batch.kept)
            elif until is not None:
                act = Act(
                    ACTOR, f"feedback up to {until:%Y-%m-%d %H:%M} UTC", clock(), keyring, new_id
                )
                with database.write(bulk=True) as session:
                    written = _store(
                        session,
                        act,
                        batch,
                        totals,
                        workload=workload,
                        until=until,
                        settings=settings,
                    )
                signatures.add(written["sample_id"], written)
    return _report(totals, workload=workload, until=until or now, dry_run=dry_run)


def watermark(session: Session, *, workload: str) -> datetime | None:
    """The time of the latest feedback that was curated, None before the first pass."""
    return session.exec(
        select_rows(CurationRun.watermark)
        .where(CurationRun.workload == workload)
        .order_by(col(CurationRun.watermark).desc())
    ).first()


class _Reader:
    """Reads on from a place, a batch at a time."""

    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        *,
        workload: str,
        since: datetime | None,
        rows: int,
    ) -> None:
        self.place: Place | None = None
        self.is_at_end = False
        self._database = database
        self._keyring = keyring
        self._workload = workload
        self._since = None if since is None else since - OVERLAP
        self._rows = rows

    def frames(self) -> list[pl.DataFrame]:
        """At least one frame, at most a batch of rows; of the first batch no second one.

        So there is soon something to compare while others go through the steps.
        """
        rows, frames = self._rows if self.place else min(self._rows, READ_ROWS), []
        with self._database.read() as session:
            while rows > 0 and not self.is_at_end:
                frames.append(self._frame(session, limit=min(rows, READ_ROWS)))
                rows -= READ_ROWS
        return frames

    def _frame(self, session: Session, *, limit: int) -> pl.DataFrame:
        frame = read_batch(
            session,
            self._keyring,
            workload=self._workload,
            since=self._since,
            after=self.place,
            limit=limit,
        )
        self.is_at_end = frame.height < limit
        if frame.height:
            self.place = last_place(frame)
        return storing.with_judgements(session, frame)


def _count(totals: _Totals, batch: Batch, settings: CurationSettings) -> None:
    totals.before.add(batch.before, max_examples=settings.report_examples)
    totals.after.add(batch.after, max_examples=0)
    liked = batch.kept.filter(~pl.col("disliked"))
    totals.sides.update(liked["split"])
    totals.num_added += liked.height
    totals.num_held += len(batch.held)


def _store(
    session: Session,
    act: Act,
    batch: Batch,
    totals: _Totals,
    *,
    workload: str,
    until: datetime,
    settings: CurationSettings,
) -> pl.DataFrame:
    """Write the new samples, what changed of earlier ones, the reviewers' queue, the watermark.

    The new samples with their ids.
    """
    withdrawn = storing.review_earlier(session, batch.seen, batch.standing)
    kept = storing.still_learnable(session, batch.kept)
    written = storing.add_samples(session, act, kept, workload=workload)
    held = storing.hold(session, act, batch.held, workload=workload)
    run = CurationRun(
        id=act.new_id(),
        workload=workload,
        watermark=until,
        counts={**batch.before.left, **batch.before.notes, "withdrawn": withdrawn},
        settings=settings.model_dump(mode="json"),
        created_at=act.now,
    )
    session.add(run)
    told = {"run": run.id, "added": kept.height, "withdrawn": withdrawn, "held": held}
    acts.record(session, act, action="curate", subject=f"workload:{workload}", details=told)
    totals.num_withdrawn += withdrawn
    return written


def _report(totals: _Totals, *, workload: str, until: datetime, dry_run: bool) -> CurationReport:
    return CurationReport(
        workload=workload,
        watermark=until,
        counts=dict(totals.before.left),
        notes={name: count for name, count in totals.before.notes.items() if count},
        num_added=totals.num_added,
        num_withdrawn=totals.num_withdrawn,
        num_held=totals.num_held,
        by_tool=dict(sorted(totals.after.domains.items())),
        by_side=dict(sorted(totals.sides.items())),
        before=totals.before,
        after=totals.after,
        dry_run=dry_run,
    )
