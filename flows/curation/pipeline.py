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
    now, totals = clock(), _Totals()
    until, place = since, None
    with ExitStack() as scope:
        rehearsed = scope.enter_context(closing(Rehearsed())) if dry_run else None
        is_at_end = False
        while not is_at_end:
            with database.read() as session:
                reader = _Reader(session, keyring, workload=workload, since=since, place=place)
                steps = RowSteps(settings, now, is_bad=is_bad)
                pages = list(_pages(reader, steps, engine, settings))
                past = Past(session, keyring, workload=workload, rehearsed=rehearsed)
                batch = compare(pages, past, settings, engine)
            place, is_at_end = reader.place, reader.is_at_end
            # A clock that runs ahead elsewhere must not hide what comes in meanwhile.
            until = max(filter(None, (until, place and min(place[0], now))), default=None)
            _count(totals, batch, settings)
            if rehearsed is not None:
                rehearsed.remember(batch.kept)
            elif until is not None:
                act = Act(
                    ACTOR, f"feedback up to {until:%Y-%m-%d %H:%M} UTC", clock(), keyring, new_id
                )
                with database.write() as session:
                    _store(
                        session,
                        act,
                        batch,
                        totals,
                        workload=workload,
                        until=until,
                        settings=settings,
                    )
    return _report(totals, workload=workload, until=until or now, dry_run=dry_run)


def watermark(session: Session, *, workload: str) -> datetime | None:
    """The time of the latest feedback that was curated, None before the first pass."""
    return session.exec(
        select_rows(CurationRun.watermark)
        .where(CurationRun.workload == workload)
        .order_by(col(CurationRun.watermark).desc())
    ).first()


class _Reader:
    """Reads on from a place, page by page, up to the size of a batch."""

    def __init__(
        self,
        session: Session,
        keyring: Keyring,
        *,
        workload: str,
        since: datetime | None,
        place: Place | None,
    ) -> None:
        self.session = session
        self._keyring = keyring
        self.place = place
        self.is_at_end = False
        self._workload = workload
        self._since = None if since is None else since - OVERLAP

    def frames(self, rows: int) -> Iterator[pl.DataFrame]:
        """At least one frame, at most `rows` rows."""
        while rows > 0:
            limit = min(rows, READ_ROWS)
            frame = read_batch(
                self.session,
                self._keyring,
                workload=self._workload,
                since=self._since,
                after=self.place,
                limit=limit,
            )
            self.is_at_end = frame.height < limit
            if frame.height:
                self.place = last_place(frame)
            yield frame
            if self.is_at_end:
                return
            rows -= limit


def _pages(
    reader: _Reader, steps: RowSteps, engine: Engine, settings: CurationSettings
) -> Iterator[Page]:
    for frame in reader.frames(settings.batch_rows):
        accepted, held = storing.judged(reader.session, frame["id"].to_list())
        mine = RowSteps(steps.settings, steps.now, accepted, held, steps.is_bad)
        yield from engine.pages(mine, [frame])


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
) -> None:
    """Write the new samples, what changed of earlier ones, the reviewers' queue, the watermark."""
    withdrawn = storing.review_earlier(session, batch.seen, batch.standing)
    storing.add_samples(session, act, batch.kept, workload=workload)
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
    told = {"run": run.id, "added": batch.kept.height, "withdrawn": withdrawn, "held": held}
    acts.record(session, act, action="curate", subject=f"workload:{workload}", details=told)
    totals.num_withdrawn += withdrawn


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
