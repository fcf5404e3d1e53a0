"""Writers are killed at random moments: what was acknowledged is there, once, and all fits."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlmodel import col, func, select

from flows.context import Context, open_context
from flows.retention import run_retention
from flows.steps import PlainSteps
from registry import audit, deployment
from registry.db import Database
from registry.models import (
    Dataset,
    Erasure,
    FeedbackEvent,
    ModelVersion,
    ProductionPeriod,
    User,
    UserInteraction,
)
from registry.settings import Settings
from registry.statistics import statistics
from serving.recording import recorder as recorder_module
from serving.recording.recorder import Recorder
from serving.recording.spool import Spool
from tests.support.crash_nursery import OLD
from tests.support.migrating import migrate

PROJECT = Path(__file__).parents[2]
KINDS = {
    "record": "feedback",
    "promote": "champion",
    "publish": "dataset",
    "erase": "erased",
    "upgrade": "",
}
"""What writers do, and the last that each acknowledges."""


class Nursery:
    """Writers, and their end."""

    def __init__(self, home: Path) -> None:
        self._told = home / "acknowledged"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.crash_nursery", str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
        )

    def kill_one(self, kind: str, *, after_s: float, once: str = "") -> None:
        """Let a writer work for a while, then kill it as a power cut would.

        `once`: not before that was acknowledged.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{kind}\n")
        self._process.stdin.flush()
        child = int(self._process.stdout.readline())
        deadline = time.monotonic() + 60
        while once not in (self._told.read_text() if self._told.exists() else ""):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(after_s)
        os.kill(child, signal.SIGKILL)
        assert self._process.stdout.readline() == "gone\n"

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(60)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An installation, and beside it a database of the first schema with an answer in it."""
    home = tmp_path / "home"
    open_context(Settings(home=home)).database.close()
    old = Database(f"sqlite:///{home / OLD}")
    old.upgrade()
    with old.write() as session:
        migrate(session.connection(), "0001")
        for statement in (
            "INSERT INTO workloads (name, created_at) VALUES ('default', '2026-01-01')",
            "INSERT INTO user_interactions (id, input_text, structured_prompt, model_output,"
            " created_at, updated_at) VALUES ('i', 'a', 'b', 'c', '2026-01-01', '2026-01-01')",
            "INSERT INTO feedback_events (id, interaction_id, score, created_at)"
            " VALUES ('f', 'i', 5, '2026-01-01')",
        ):
            session.connection().execute(text(statement))
    old.close()
    return home


@pytest.fixture
def nursery(home: Path) -> Iterator[Nursery]:
    found = Nursery(home)
    yield found
    found.close()


@pytest.mark.parametrize(
    "kills", [10, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_a_kill_at_any_moment_loses_and_doubles_nothing(
    home: Path, nursery: Nursery, kills: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "LOOK_EVERY_S", 0.01)
    moments = random.Random(1)
    for number in range(kills):
        kind = list(KINDS)[number % len(KINDS)]
        once = KINDS[kind] if number < len(KINDS) else ""
        nursery.kill_one(kind, after_s=moments.uniform(0.02, 0.6), once=once)
        assert is_sound(Database(f"sqlite:///{home / 'kalimtak.db'}"))
        assert is_sound(Database(f"sqlite:///{home / OLD}"))
    context = open_context(Settings(home=home))
    asyncio.run(replay(context))
    told: dict[str, list[str]] = {}
    for line in (home / "acknowledged").read_text().splitlines():
        told.setdefault(line.split()[0], []).append(line.split()[1])
    assert set(told) == {"interaction", "feedback", "champion", "dataset", "asked", "erased"}
    run_retention(context, steps=PlainSteps())
    check_erased(context, told)
    check_rows(context, told)
    check_production(context, told["champion"])
    check_datasets(context, told["dataset"])
    context.database.close()
    check_old(Database(f"sqlite:///{home / OLD}"))


def is_sound(database: Database) -> bool:
    with database.read() as session:
        whole = session.connection().exec_driver_sql("PRAGMA integrity_check").scalars().all()
        broken = session.connection().exec_driver_sql("PRAGMA foreign_key_check").all()
    database.close()
    return whole == ["ok"] and broken == []


async def replay(context: Context) -> None:
    """The next router takes over what dead ones have spooled."""
    spool = Spool(context.settings.home / "spool", max_bytes=2**30)
    recorder = Recorder(context.database, context.keyring, spool=spool)
    recorder.start()
    async with asyncio.timeout(60):
        while list((context.settings.home / "spool").glob("*/*.spool")):
            await asyncio.sleep(0.01)
    await recorder.stop()


def check_rows(context: Context, told: dict[str, list[str]]) -> None:
    with context.database.read() as session:
        rows = set(session.exec(select(UserInteraction.id)).all())
        events = session.exec(select(FeedbackEvent.id)).all()
        shown = session.exec(
            select(func.count()).where(col(UserInteraction.feedback_score).is_not(None))
        ).one()
        totals = statistics(session)
        about = Counter(session.exec(select(FeedbackEvent.interaction_id)).all())
    assert set(told["interaction"]) <= rows
    assert set(told["feedback"]) <= set(events)
    assert set(about.values()) == {1}
    assert (totals.total, totals.rated, shown) == (len(rows), len(events), len(events))


def check_production(context: Context, told: list[str]) -> None:
    with context.database.read() as session:
        key = context.keyring.derive(deployment.AUDIT_PURPOSE)
        assert audit.verify(session, key=key) is None
        champions = session.exec(
            select(ModelVersion.version).where(ModelVersion.deployment_status == "champion")
        ).all()
        served = session.exec(
            select(ProductionPeriod.version).order_by(col(ProductionPeriod.generation))
        ).all()
        open_periods = session.exec(
            select(ProductionPeriod.version).where(col(ProductionPeriod.to_at).is_(None))
        ).all()
        desired = deployment.desired(session).champion
    assert desired is not None
    assert list(champions) == list(open_periods) == [desired.version]
    assert [version for version in served if version in set(told)] == told


def check_erased(context: Context, told: dict[str, list[str]]) -> None:
    """Who was told to be gone is; the last of each writer may not have got so far."""
    begun = {context.keyring.pseudonym(person): person for person in told["asked"]}
    with context.database.read() as session:
        left = set(
            session.exec(
                select(UserInteraction.user_id).where(col(UserInteraction.user_id).in_(begun))
            )
        )
        known = set(session.exec(select(User.id).where(col(User.id).in_(begun))))
        erasures = session.exec(select(Erasure)).all()
    assert left == known
    assert not {begun[user_id] for user_id in known if user_id is not None} & set(told["erased"])
    assert all(erasure.report and erasure.scrubbed_at for erasure in erasures)
    assert len(erasures) == len(begun) - len(known)


def check_datasets(context: Context, told: list[str]) -> None:
    with context.database.read() as session:
        digests = session.exec(select(Dataset.digest)).all()
    assert len(digests) == len(set(digests))
    assert set(told) <= set(digests)
    for digest in digests:
        assert context.store.fetch(digest).is_dir()


def check_old(database: Database) -> None:
    database.upgrade()
    database.check()
    with database.read() as session:
        assert session.exec(select(UserInteraction.id)).all() == ["i"]
        assert session.exec(select(FeedbackEvent.id)).all() == ["f"]
        assert statistics(session).total == 1
    database.close()
