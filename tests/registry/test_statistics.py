"""Totals are what a full recount says, whatever was logged, rated, changed or erased."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, func, select, text
from sqlmodel import col

from registry import interactions, statistics
from registry.candidates import candidates
from registry.crypto import Keyring
from registry.db import Database, open_database
from registry.interactions import Feedback, Interaction
from registry.models import FeedbackEvent, UsageHour, UserInteraction, Workload
from registry.monitoring import CALLER_LEFT
from registry.settings_curation import CurationSettings
from tests.registry.conftest import NOW

NewId = Callable[[], str]
Totals = tuple[int, int, int, int, int]
Counted = tuple[Totals, float | None]
BEGIN, END = NOW - timedelta(hours=3), NOW + timedelta(hours=3)
MINUTES = st.integers(-240, 240)
ROLES = ("default", "champion", "challenger", "shadow")

STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("log"),
            st.sampled_from(ROLES),
            MINUTES,
            st.none() | st.floats(0, 1),
            st.sampled_from([None, "broken", CALLER_LEFT]),
        ),
        st.tuples(st.just("rate"), st.integers(0, 20), st.integers(1, 5)),
        st.tuples(st.just("correct"), st.integers(0, 20)),
        st.tuples(st.just("erase"), st.integers(0, 20)),
        st.tuples(st.just("retain"), MINUTES),
        st.tuples(st.just("rename")),
        st.tuples(st.just("undo"), MINUTES),
        st.tuples(st.just("fold")),
    ),
    max_size=25,
)


def item(number: int, at: datetime, **changes: object) -> Interaction:
    values: dict[str, object] = {
        "id": f"i{number}",
        "created_at": at,
        "input_text": "a",
        "structured_prompt": "b",
        "model_output": "c",
    }
    return Interaction(**(values | changes))  # type: ignore[arg-type]


class World:
    """Does to a database what the product does, step by step."""

    def __init__(self, database: Database, keyring: Keyring, new_id: NewId) -> None:
        self.database, self.keyring, self.new_id = database, keyring, new_id
        self.number = 0

    def clear(self) -> None:
        with self.database.write() as session:
            for table in (UserInteraction, UsageHour):
                session.connection().execute(delete(table))
            session.connection().execute(text("UPDATE workloads SET name = 'default'"))

    def log(self, role: str, minutes: int, quality: float | None, error: str | None) -> None:
        self.number += 1
        row = item(
            self.number,
            NOW + timedelta(minutes=minutes, seconds=self.number),
            workload=self.workload(),
            role=role,
            quality_score=quality,
            error=error,
        )
        with self.database.write() as session:
            interactions.log(session, [row], keyring=self.keyring)
            # A batch that is offered again adds nothing.
            interactions.log(session, [row], keyring=self.keyring, again=True)

    def workload(self) -> str:
        with self.database.read() as session:
            return str(session.connection().execute(select(col(Workload.name))).scalar_one())

    def say(self, which: int, **said: object) -> None:
        found = self.ids()
        if found:
            feedback = Feedback(interaction_id=found[which % len(found)], **said)  # type: ignore[arg-type]
            with self.database.write() as session:
                interactions.add_feedback(session, feedback, now=NOW, new_id=self.new_id)

    def rate(self, which: int, score: int) -> None:
        self.say(which, score=score)

    def correct(self, which: int) -> None:
        self.say(which, corrected_output="better")

    def erase(self, which: int) -> None:
        found = self.ids()
        if found:
            gone = col(UserInteraction.id) == found[which % len(found)]
            self.delete(gone)

    def retain(self, minutes: int) -> None:
        self.delete(col(UserInteraction.created_at) < NOW + timedelta(minutes=minutes))

    def delete(self, condition: object) -> None:
        with self.database.write() as session:
            session.connection().execute(delete(UserInteraction).where(condition))  # type: ignore[arg-type]

    def rename(self) -> None:
        with self.database.write() as session:
            session.connection().execute(text("UPDATE workloads SET name = name || 'x'"))

    def undo(self, minutes: int) -> None:
        """A transaction that fails leaves no count behind."""

        def doomed() -> None:
            with self.database.write() as session:
                row = item(-1, NOW + timedelta(minutes=minutes), workload=self.workload())
                interactions.log(session, [row], keyring=self.keyring)
                raise KeyError

        with pytest.raises(KeyError):
            doomed()

    def fold(self) -> None:
        with self.database.write() as session:
            statistics.fold(session, now=END)

    def ids(self) -> list[str]:
        with self.database.read() as session:
            query = select(col(UserInteraction.id)).order_by(col(UserInteraction.id))
            return list(session.connection().execute(query).scalars())

    def recount(self, since: datetime | None, until: datetime | None) -> Counted:
        """Every row read again."""
        with self.database.read() as session:
            query = select(UserInteraction).where(col(UserInteraction.role) != "shadow")
            rows = [row for (row,) in session.execute(query)]
        rows = [
            row
            for row in rows
            if (since is None or row.created_at >= since)
            and (until is None or row.created_at < until)
        ]
        scores = [row.quality_score for row in rows if row.quality_score is not None]
        totals = (
            len(rows),
            sum(row.user_feedback is not None for row in rows),
            sum(row.user_feedback == 1 for row in rows),
            sum(row.user_feedback == -1 for row in rows),
            sum(row.error not in (None, CALLER_LEFT) for row in rows),
        )
        return totals, sum(scores) / len(scores) if scores else None

    def counted(self, since: datetime | None, until: datetime | None) -> Counted:
        """What the product says."""
        workload = self.workload()
        with self.database.read() as session:
            found = statistics.statistics(session, workload=workload, since=since, until=until)
        totals = (found.total, found.rated, found.positive, found.negative, found.errors)
        return totals, found.avg_quality


@pytest.fixture
def world(database: Database, keyring: Keyring, new_id: NewId) -> World:
    return World(database, keyring, new_id)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, since=st.none() | MINUTES, until=st.none() | MINUTES)
def test_whatever_happens_totals_are_what_a_recount_says(
    world: World, steps: list[tuple[object, ...]], since: int | None, until: int | None
) -> None:
    world.clear()
    for name, *arguments in steps:
        getattr(world, str(name))(*arguments)
    window = [None if edge is None else NOW + timedelta(minutes=edge) for edge in (since, until)]
    for begin, end in ((None, None), (BEGIN, END), window):
        totals, quality = world.counted(begin, end)
        expected, mean = world.recount(begin, end)
        assert totals == expected
        assert quality == (None if mean is None else pytest.approx(mean, abs=1e-8))


@pytest.fixture
def crowd(database_url: str) -> Iterator[list[Database]]:
    found = [open_database(database_url) for _ in range(4)]
    yield found
    for database in found:
        database.close()


def test_many_who_write_at_once_neither_block_nor_lose_a_count(
    world: World, crowd: list[Database], keyring: Keyring
) -> None:
    """Each writes into several hours in an order of its own, which would be a deadlock in
    rows that they share."""

    def write(writer: int) -> None:
        database = crowd[writer]
        for turn in range(15):
            rows = [
                item(
                    writer * 10_000 + turn * 10 + place,
                    NOW + timedelta(hours=(place * (1 if writer % 2 else -1)) % 5),
                    role=ROLES[(place + writer) % 3],
                )
                for place in range(8)
            ]
            with database.write() as session:
                interactions.log(session, rows, keyring=keyring)
            with database.write() as session:
                statistics.fold(session, now=NOW + timedelta(days=1))

    with ThreadPoolExecutor(len(crowd)) as pool:
        list(pool.map(write, range(len(crowd))))
    assert world.counted(None, None)[0] == world.recount(None, None)[0] == (480, 0, 0, 0, 0)


def test_folding_leaves_one_row_for_each_hour_and_role(world: World) -> None:
    for minutes in (-61, -60, -59, 1):
        world.log("default", minutes, 0.5, None)
    world.fold()
    with world.database.read() as session:
        writers = session.connection().execute(
            select(col(UsageHour.writer), func.sum(col(UsageHour.total))).group_by("writer")
        )
        assert [tuple(row) for row in writers] == [(0, 4)]
        hours = session.connection().execute(select(func.count()).select_from(UsageHour))
        assert hours.scalar_one() == 3


SAMPLES = (
    ({"quality_score": 0.9}, {"thumb": 1}, True),
    ({"quality_score": 0.6}, {"thumb": 1}, False),
    ({"quality_score": None}, {"thumb": 1}, False),
    ({"quality_score": 0.9}, {"thumb": 0}, False),
    ({"quality_score": 0.9}, {"text": "well"}, False),
    ({"quality_score": 0.1}, {"thumb": -1, "corrected_output": "better"}, True),
    ({"messages": [{"role": "user", "content": "a"}]}, {"thumb": 1}, True),
    ({"messages": [{"role": "user", "content": "a"}]}, {"thumb": -1}, False),
    ({"messages": [{"role": "user", "content": "a"}], "quality_score": 0.5}, {"thumb": 1}, False),
    ({"messages": [{"role": "user", "content": "a"}]}, {"corrected_output": "b"}, True),
    ({"quality_score": 0.9}, None, False),
)


@pytest.mark.parametrize(("row", "said", "counts"), SAMPLES)
def test_a_sample_counts_where_curation_would_accept_it(
    world: World,
    row: dict[str, object],
    said: dict[str, object] | None,
    counts: bool,
) -> None:
    with world.database.write() as session:
        interactions.log(session, [item(0, NOW, **row)], keyring=world.keyring)
    if said is not None:
        world.say(0, **said)
    with world.database.read() as session:

        def count(since: datetime | None) -> int:
            return statistics.count_quality_samples(
                session,
                workload="default",
                min_quality=0.7,
                min_quality_if_liked=0.7,
                min_feedback=1,
                since=since,
            )

        assert count(None) == count(NOW - timedelta(seconds=1)) == int(counts)
        assert count(NOW) == 0


@pytest.mark.parametrize(("score", "thumb"), [(0.6, 1), (0.6, 0), (0.4, 1), (0.8, 0), (0.8, 1)])
def test_an_answer_that_is_liked_may_be_worth_less(world: World, score: float, thumb: int) -> None:
    """As curation has it, by `maybe_min_quality`: the triggers count what it takes."""
    settings = CurationSettings(min_feedback=0, maybe_min_quality=0.5)
    with world.database.write() as session:
        row = item(0, NOW, quality_score=score)
        interactions.log(session, [row], keyring=world.keyring)
    world.say(0, thumb=thumb)
    with world.database.read() as session:
        limits = {
            "workload": "default",
            "min_quality": settings.min_quality,
            "min_quality_if_liked": settings.min_quality_if_liked,
            "min_feedback": settings.min_feedback,
        }
        number = statistics.count_quality_samples(session, since=None, **limits)  # type: ignore[arg-type]
        listed = candidates(session, limit=9, **limits)  # type: ignore[arg-type]
    taken = score >= (0.5 if thumb == 1 else 0.7)
    assert number == len(listed) == int(taken)


def test_feedback_events_go_with_what_they_are_about(world: World) -> None:
    world.log("default", 0, 0.5, None)
    world.rate(0, 5)
    world.erase(0)
    with world.database.read() as session:
        query = select(func.count()).select_from(FeedbackEvent)
        assert session.connection().execute(query).scalar() == 0
