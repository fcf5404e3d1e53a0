"""What each day (UTC) looked like: quality by scorer, prompts by class.

A day is read from its rows once, when it is over, and kept in `usage_days`; more rows that
arrive for it later (a spool, an import) have it read again, rows that go do not. Shadow
answers, which nobody saw, are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import ColumnElement, case, delete, func
from sqlalchemy import select as select_columns
from sqlalchemy.orm import Mapped
from sqlmodel import Session, col, select

from registry import scorers, texts
from registry.crypto import Keyring
from registry.db import Database
from registry.inserting import insert_ignoring_duplicates
from registry.models import QualityScorer, UsageDay, UsageHour, UserInteraction

DAY = timedelta(days=1)
LENGTHS = (20, 40, 80, 160, 320, 640, 1280, 5120)
"""Bounds, in characters, of the classes of prompt lengths."""
LONGEST = 99
"""The class beyond all bounds."""
BATCH = 1000
"""Sealed prompts that are held in memory at once."""


@dataclass(frozen=True)
class Day:
    """One day that is over."""

    day: date
    total: int
    quality: dict[str, tuple[int, float]]
    """Number and sum of scores by scorer; "" where none is named."""
    prompts: dict[str, int]
    """Number of prompts by class."""


def midnight(moment: datetime) -> datetime:
    """The one (UTC) before `moment`, or at it."""
    return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def days(
    session: Session,
    *,
    workload: str,
    since: datetime,
    until: datetime,
    keyring: Keyring | None = None,
) -> list[Day]:
    """Every day in [since, until) that has interactions, oldest first; both are midnights.

    Those that are not kept are read from their rows; `keyring` opens prompts that lie sealed.
    Raises `KeyringError` where that fails.
    """
    kept, totals = _kept(session, workload, since, until), _totals(session, workload, since, until)
    found = [kept[day] for day in kept if not _is_stale(kept[day], totals)]
    read = [day for day in totals if day not in kept or _is_stale(kept[day], totals)]
    found += [_read(session, workload, day, keyring) for day in read]
    return sorted(found, key=lambda each: each.day)


def keep(
    database: Database,
    *,
    workload: str,
    since: datetime,
    until: datetime,
    keyring: Keyring | None = None,
) -> int:
    """Keep those days in [since, until) that are not, one at a time; how many they were."""
    with database.read() as session:
        kept = _kept(session, workload, since, until)
        totals = _totals(session, workload, since, until)
    stale = [day for day in totals if day not in kept or _is_stale(kept[day], totals)]
    for day in stale:
        with database.read() as session:  # nobody waits while it is read
            found = _read(session, workload, day, keyring)
        with database.write() as session:
            _store(session, workload, found)
    return len(stale)


def mean_quality(
    session: Session, found: Sequence[Day], *, workload: str, least: int
) -> list[float]:
    """Each day's mean score by the active scorer alone: a new one must not look like a change.

    Without an active one, by those that nobody fitted. Days with fewer than `least` scores
    are left out.
    """
    active = scorers.active(session).get(workload)
    fitted = set(session.exec(select(QualityScorer.version)))
    means = []
    for day in found:
        pairs = [
            pair
            for name, pair in day.quality.items()
            if (name not in fitted if active is None else name == active.version)
        ]
        num = sum(count for count, _ in pairs)
        if num >= max(least, 1):
            means.append(sum(total for _, total in pairs) / num)
    return means


def mixture(found: Sequence[Day]) -> dict[str, int]:
    """The days' prompts by class, together."""
    together: Counter[str] = Counter()
    for day in found:
        together.update(day.prompts)
    return dict(together)


def _store(session: Session, workload: str, found: Day) -> None:
    of_day = (col(UsageDay.workload) == workload, col(UsageDay.day) == found.day)
    session.connection().execute(delete(UsageDay).where(*of_day))
    row = {
        "workload": workload,
        "day": found.day,
        "total": found.total,
        "quality": {name: list(pair) for name, pair in found.quality.items()},
        "prompts": found.prompts,
    }
    insert_ignoring_duplicates(session, UsageDay, [row])  # two may look at once


def _is_stale(kept: Day, totals: dict[date, int]) -> bool:
    return totals.get(kept.day, 0) > kept.total


def _kept(session: Session, workload: str, since: datetime, until: datetime) -> dict[date, Day]:
    row = UsageDay
    query = select_columns(col(row.day), col(row.total), col(row.quality), col(row.prompts)).where(
        col(row.workload) == workload,
        col(row.day) >= since.date(),
        col(row.day) < until.date(),
    )
    return {
        day: Day(
            day,
            total,
            {name: (int(num), float(sum_)) for name, (num, sum_) in quality.items()},
            prompts,
        )
        for day, total, quality, prompts in session.connection().execute(query).tuples()
    }


def _totals(session: Session, workload: str, since: datetime, until: datetime) -> dict[date, int]:
    hour = col(UsageHour.hour)
    day = _day(session, hour).label("day")
    query = (
        select_columns(day, func.sum(col(UsageHour.total)))
        .where(
            col(UsageHour.workload) == workload,
            col(UsageHour.role) != "shadow",
            hour >= since,
            hour < until,
        )
        .group_by(day)
    )
    rows = session.connection().execute(query).tuples()
    return {_date(at): int(num) for at, num in rows if num}


def _read(session: Session, workload: str, day: date, keyring: Keyring | None) -> Day:
    at, table = col(UserInteraction.created_at), UserInteraction
    begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
    within = [
        col(table.workload) == workload,
        at >= begin,
        at < begin + DAY,
        col(table.role) != "shadow",
    ]
    scorer, score = func.coalesce(col(table.scorer_version), ""), col(table.quality_score)
    by_scorer = (
        select_columns(scorer, func.count(), func.count(score), func.sum(score))
        .where(*within)
        .group_by(scorer)
    )
    rows = session.connection().execute(by_scorer).tuples().all()
    return Day(
        day,
        sum(total for _, total, _, _ in rows),
        {name: (num, float(sum_ or 0)) for name, _, num, sum_ in rows if num},
        _prompts(session, within, keyring),
    )


def _prompts(
    session: Session, within: list[ColumnElement[bool]], keyring: Keyring | None
) -> dict[str, int]:
    """Of sealed prompts the database knows no length: they are opened, one by one."""
    prompt = col(UserInteraction.input_text)
    sealed, length = prompt.startswith(texts.MARK, autoescape=True), func.length(prompt)
    size = case(*((length < bound, place) for place, bound in enumerate(LENGTHS)), else_=LONGEST)
    tool, language = col(UserInteraction.target_tool), col(UserInteraction.language)
    query = (
        select_columns(tool, language, size.label("size"), func.count())
        .where(*within, ~sealed)
        .group_by(tool, language, size)
    )
    found: Counter[str] = Counter()
    for a, b, place, num in session.connection().execute(query).tuples():
        found[_class(a, b, place)] += num
    rows = select_columns(col(UserInteraction.id), tool, language, prompt).where(*within, sealed)
    for row_id, a, b, text in session.connection().execute(rows).yield_per(BATCH).tuples():
        opened = texts.unseal(text, place=f"user_interactions.input_text:{row_id}", keyring=keyring)
        found[_class(a, b, _size(len(opened)))] += 1
    return dict(found)


def _class(tool: str | None, language: str | None, size: int) -> str:
    return f"{tool or '-'}|{language or '-'}|{size}"


def _size(length: int) -> int:
    return next((place for place, bound in enumerate(LENGTHS) if length < bound), LONGEST)


def _day(session: Session, at: Mapped[datetime]) -> ColumnElement[str]:
    if session.get_bind().dialect.name == "postgresql":
        return func.date(func.timezone("UTC", at))
    return func.date(at)


def _date(found: str | date) -> date:
    return found if isinstance(found, date) else date.fromisoformat(found)
