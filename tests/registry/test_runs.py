from datetime import timedelta

import pytest

from registry import runs
from registry.db import Database
from registry.errors import ConflictError
from tests.registry.conftest import NOW


def start(database: Database, run_id: str) -> None:
    with database.write() as session:
        runs.start(session, run_id=run_id, workload="default", trigger="forced", now=NOW)


def test_a_second_run_at_once_is_refused_by_the_database(database: Database) -> None:
    start(database, "r1")
    with pytest.raises(ConflictError, match="already training"):
        start(database, "r2")


def test_a_run_whose_heart_stopped_is_reaped(database: Database) -> None:
    start(database, "r1")
    later = NOW + timedelta(seconds=200)
    with database.write() as session:
        assert not runs.reap(session, now=later, stale_after_s=201)
        assert [run.id for run in runs.reap(session, now=later, stale_after_s=180)] == ["r1"]
    start(database, "r2")
    with database.read() as session:
        dead = runs.get(session, "r1")
    assert (dead.status, dead.reason) == ("failed", "its process died: no heartbeat for 200 s")


def test_a_reaped_run_cannot_come_back_to_life(database: Database) -> None:
    start(database, "r1")
    with database.write() as session:
        runs.reap(session, now=NOW + timedelta(hours=1), stale_after_s=180)
    with pytest.raises(ConflictError, match="already failed"), database.write() as session:
        runs.finish(session, "r1", status="succeeded", reason="done", now=NOW)


def test_a_beating_heart_is_left_alone(database: Database) -> None:
    start(database, "r1")
    with database.write() as session:
        runs.heartbeat(session, "r1", now=NOW + timedelta(seconds=190))
        assert not runs.reap(session, now=NOW + timedelta(seconds=200), stale_after_s=180)
