"""No query of the product reads all of a table that grows with use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlmodel import Session

from flows.curation.pipeline import curate
from flows.decisions.facts import gather
from registry import (
    deployment,
    experiments,
    interactions,
    lineage,
    runs,
    statistics,
    trial_rows,
)
from registry.candidates import candidates
from registry.clock import new_id
from registry.crypto import Keyring
from registry.db import Database, open_database
from registry.interactions import Feedback, Interaction
from registry.models import CurationRun, Experiment, TrialRows
from registry.settings import CurationSettings, Settings
from tests.support.many_rows import NOW, fill
from tests.support.postgresql import Server
from tests.support.query_plans import scans, statements

KEYRING = Keyring(bytes(32))
DAY = timedelta(days=1)


def answer(row_id: str) -> Interaction:
    return Interaction(
        id=row_id,
        created_at=NOW,
        input_text="a",
        structured_prompt="b",
        model_output="c",
        external_user_id="someone",
        ip_address="192.0.2.7",
    )


def rate(session: Session, *, late: bool) -> None:
    given_at = NOW - 365 * DAY if late else NOW
    interactions.add_feedback(
        session,
        Feedback(interaction_id="i00000150", score=4, given_at=given_at, owner="u150"),
        now=NOW,
        new_id=new_id,
    )


TRIAL = Experiment(id="e3", workload="default", settings={}, share=0.1, started_at=NOW)


def look_again(session: Session) -> None:
    found = trial_rows.read(session, TRIAL, prior_days=1)
    session.add(TrialRows(**trial_rows.as_kept(TRIAL, found, prior_days=1)))
    session.flush()
    assert trial_rows.read(session, TRIAL, prior_days=1).rows.height == found.rows.height


QUERIES: dict[str, Callable[[Session], object]] = {
    "totals": lambda s: statistics.statistics(s),
    "totals of a window": lambda s: statistics.statistics(
        s, since=NOW - DAY - timedelta(minutes=31), until=NOW - timedelta(minutes=7)
    ),
    "samples": lambda s: statistics.count_quality_samples(
        s, workload="default", min_quality=0.7, min_quality_if_liked=0.7, min_feedback=1, since=None
    ),
    "new samples": lambda s: statistics.count_quality_samples(
        s,
        workload="default",
        min_quality=0.7,
        min_quality_if_liked=0.7,
        min_feedback=1,
        since=NOW - DAY,
    ),
    "triggers": lambda s: gather(s, workload="default", settings=Settings(), now=NOW),
    "runs": lambda s: runs.count(s, workload="default"),
    "history": lambda s: interactions.history(s, user_id="u5", failed=False),
    "older history": lambda s: interactions.history(
        s, user_id="u5", before=NOW - DAY, before_id="i00001005"
    ),
    "candidates": lambda s: candidates(
        s, workload="default", min_quality=0.7, min_quality_if_liked=0.7, min_feedback=1, limit=50
    ),
    "older candidates": lambda s: candidates(
        s,
        workload="default",
        min_quality=0.7,
        min_quality_if_liked=0.7,
        min_feedback=1,
        limit=50,
        before=(NOW - DAY, "i00001005"),
    ),
    "rows of a trial": lambda s: trial_rows.read(s, TRIAL, prior_days=1),
    "rows of a trial since the last look": lambda s: look_again(s),
    "decisions": lambda s: experiments.last_decisions(s, workload="default"),
    "interactions of a version": lambda s: lineage.interactions_of(s, "v3"),
    "versions of an interaction": lambda s: lineage.versions_of(s, "i00000040"),
    "log": lambda s: interactions.log(s, [answer("new")], keyring=KEYRING),
    "log again": lambda s: interactions.log(s, [answer("new")], keyring=KEYRING, again=True),
    "feedback": lambda s: rate(s, late=False),
    "late feedback": lambda s: rate(s, late=True),
}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def filled(
    request: pytest.FixtureRequest, postgresql: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[int], Database]]:
    """A registry with that many interactions, made once for each number of them."""
    made: dict[int, Database] = {}

    def make(rows: int) -> Database:
        if rows not in made:
            folder: Path = tmp_path_factory.mktemp("many")
            is_file = request.param == "sqlite"
            url = f"sqlite:///{folder / 'many.db'}" if is_file else postgresql.create()
            database = open_database(url)
            with database.write() as session:
                deployment.add_workload(session, "default", now=NOW)
            fill(database, rows)
            made[rows] = database
        return made[rows]

    yield make
    for database in made.values():
        database.close()
        if request.param == "postgresql":
            postgresql.drop(database.url)


ROWS = [30_000, pytest.param(1_000_000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])]


@pytest.mark.parametrize("rows", ROWS)
def test_no_query_reads_a_large_table_from_end_to_end(
    filled: Callable[[int], Database], rows: int
) -> None:
    database = filled(rows)
    num_explained = 0
    for name, query in QUERIES.items():
        with statements(database) as sent, database.write() as session:
            query(session)
            session.rollback()
        for statement in {repr(found): found for found in sent}.values():
            if statement.is_about_large_tables:
                assert scans(database, statement) == [], f"{name}: {statement.text}"
                num_explained += 1
    assert num_explained >= 16


@pytest.mark.parametrize("rows", ROWS)
def test_curation_reads_what_is_new_by_an_index(
    filled: Callable[[int], Database], rows: int
) -> None:
    database = filled(rows)
    with database.write() as session:
        session.add(CurationRun(id=new_id(), watermark=NOW - DAY, created_at=NOW))
    with statements(database) as sent:
        curate(
            database,
            workload="default",
            settings=CurationSettings(),
            keyring=KEYRING,
            clock=lambda: NOW,
            new_id=new_id,
            dry_run=True,
        )
    reading = [found for found in sent if "feedback_at >" in found.text]
    assert reading
    assert [scans(database, found) for found in reading] == [[]]


def test_a_scan_is_found_where_there_is_one(filled: Callable[[int], Database]) -> None:
    database = filled(30_000)
    with statements(database) as sent, database.read() as session:
        session.connection().exec_driver_sql("SELECT id FROM user_interactions WHERE language='x'")
    assert [len(scans(database, found)) for found in sent if found.is_about_large_tables] == [1]
