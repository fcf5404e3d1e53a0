"""Nothing acknowledged is lost or doubled while databases go away and routers die."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlmodel import delete, select

from registry.clock import Clock, utc_now
from registry.db import Database
from registry.errors import NotFoundError
from registry.interactions import Feedback, Interaction
from registry.models import FeedbackEvent, UserInteraction
from serving.errors import OverloadedError, RecordingError
from serving.recording import recorder as recorder_module
from serving.recording.recorder import PARKED_FOR, Recorder
from serving.recording.spool import Spool, spooled
from tests.serving.conftest import Installation
from tests.support.flaky_database import FlakyDatabase

pytestmark = pytest.mark.both_databases


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "LOOK_EVERY_S", 0.01)


@pytest.fixture
def database(installation: Installation) -> Iterator[FlakyDatabase]:
    found = FlakyDatabase(installation.settings.resolved_database_url)
    yield found
    found.close()


def answer(row_id: str, **changes: str) -> Interaction:
    values = {"input_text": "a", "structured_prompt": "b", "model_output": "c", "session_id": "s"}
    return Interaction(id=row_id, created_at=utc_now(), **(values | changes))  # type: ignore[arg-type]


def rows(installation: Installation) -> list[str]:
    with installation.database.read() as session:
        return sorted(session.exec(select(UserInteraction.id)).all())


def events(installation: Installation) -> Counter[str]:
    with installation.database.read() as session:
        return Counter(session.exec(select(FeedbackEvent.interaction_id)).all())


def scores(installation: Installation) -> dict[str, int | None]:
    with installation.database.read() as session:
        found = session.exec(select(UserInteraction.id, UserInteraction.feedback_score))
        return dict(list(found))


async def until_empty(recorder: Recorder) -> None:
    async with asyncio.timeout(60):
        while recorder.into == "spool":
            await asyncio.sleep(0.01)


def kill(recorder: Recorder) -> None:
    """What kill -9 does: no farewell; the kernel drops the lock, the files stay as they are."""
    for task in recorder._tasks:
        task.cancel()
    recorder._thread.shutdown(wait=True)
    recorder._prober.shutdown(wait=True)
    for descriptor in (recorder.spool._lock, recorder.spool._file):
        if descriptor is not None:
            os.close(descriptor)


@asynccontextmanager
async def recording(
    installation: Installation,
    database: Database,
    *,
    max_bytes: int = 1_000_000,
    clock: Clock = utc_now,
) -> AsyncIterator[Recorder]:
    spool = Spool(installation.settings.home / "spool", max_bytes=max_bytes)
    recorder = Recorder(database, installation.keyring, spool=spool, clock=clock)
    recorder.start()
    yield recorder
    await recorder.stop()


async def test_answers_and_their_feedback_survive_an_outage(
    installation: Installation, database: FlakyDatabase
) -> None:
    async with recording(installation, database) as recorder:
        await recorder.record(answer("before", external_user_id="user-123"))
        database.away = True
        await asyncio.gather(*(recorder.record(answer(f"i{n}")) for n in range(50)))
        await recorder.feedback(Feedback(interaction_id="i7", score=2))
        await recorder.feedback(Feedback(interaction_id="i7", score=5))
        await recorder.feedback(Feedback(interaction_id="before", score=4))
        assert recorder.into == "spool"
        assert rows(installation) == ["before"]
        database.away = False
        await until_empty(recorder)
        await recorder.record(answer("after"))
        assert len(rows(installation)) == 52
        assert scores(installation)["i7"] == 5
        assert events(installation) == {"i7": 2, "before": 1}
    assert list((installation.settings.home / "spool").iterdir()) == []


async def test_a_locked_database_holds_an_answer_for_a_moment_only(
    installation: Installation,
) -> None:
    quick = Database(installation.settings.resolved_database_url, patience_s=0.05)
    async with recording(installation, quick) as recorder:
        with installation.locked():
            async with asyncio.timeout(10):
                await recorder.record(answer("i1"))
            assert recorder.into == "spool"
        await until_empty(recorder)
    quick.close()
    assert rows(installation) == ["i1"]


async def test_a_commit_whose_answer_was_lost_is_not_repeated(
    installation: Installation, database: FlakyDatabase
) -> None:
    async with recording(installation, database) as recorder:
        database.lost_commits = 1
        await recorder.record(answer("i1", ip_address="10.1.2.3"))
        await until_empty(recorder)
        database.lost_commits = 1
        await recorder.feedback(Feedback(interaction_id="i1", score=3))
        await until_empty(recorder)
    assert rows(installation) == ["i1"]
    assert events(installation) == {"i1": 1}


async def test_the_spool_has_a_bound(installation: Installation, database: FlakyDatabase) -> None:
    async with recording(installation, database, max_bytes=2_500) as recorder:
        database.away = True
        outcomes = await asyncio.gather(
            *(recorder.record(answer(f"i{number}")) for number in range(3)), return_exceptions=True
        )
        assert outcomes == [None] * 3
        with pytest.raises(OverloadedError, match="full"):
            await recorder.record(answer("big", input_text="x" * 2_000))
        database.away = False
        await until_empty(recorder)
        recorder.require_room()
    assert rows(installation) == ["i0", "i1", "i2"]


async def test_what_the_database_refuses_holds_up_nothing(
    installation: Installation, database: FlakyDatabase
) -> None:
    async with recording(installation, database) as recorder:
        database.away = True
        await recorder.record(answer("i1"))
        await recorder.record(answer("bad", model_version="no such version"))
        await recorder.record(answer("i2"))
        database.away = False
        await until_empty(recorder)
    assert rows(installation) == ["i1", "i2"]
    kept = (installation.settings.home / "spool" / "quarantine.jsonl").read_text()
    assert kept.count("\n") == 1
    assert "foreign key" in kept.lower()
    assert "no such version" not in kept


async def test_feedback_on_nothing_is_told_so_or_set_aside_where_nobody_could_tell(
    installation: Installation, database: FlakyDatabase
) -> None:
    late = timedelta(0)
    async with recording(installation, database, clock=lambda: utc_now() + late) as recorder:
        with pytest.raises(NotFoundError):
            await recorder.feedback(Feedback(interaction_id="nobody", score=5))
        database.away = True
        await recorder.feedback(Feedback(interaction_id="nobody", score=5))
        database.away = False
        await until_empty(recorder)
        assert len(recorder.spool.parked) == 1
        late = PARKED_FOR
        async with asyncio.timeout(60):
            while recorder.spool.parked:
                await asyncio.sleep(0.01)
    kept = (installation.settings.home / "spool" / "quarantine.jsonl").read_text()
    assert "no interaction 'nobody'" in kept


async def test_feedback_waits_for_the_answer_in_another_routers_spool(
    installation: Installation, database: FlakyDatabase
) -> None:
    other_database = FlakyDatabase(installation.settings.resolved_database_url)
    async with (
        recording(installation, database) as recorder,
        recording(installation, other_database) as other,
    ):
        other_database.away = True
        await other.record(answer("i1"))
        await recorder.feedback(Feedback(interaction_id="i1", score=5))
        await until_empty(recorder)
        assert len(recorder.spool.parked) == 1
        other_database.away = False
        await until_empty(other)
        async with asyncio.timeout(60):
            while recorder.spool.parked:
                await asyncio.sleep(0.01)
    other_database.close()
    assert scores(installation) == {"i1": 5}


async def test_a_full_disk_is_told_and_passes(
    installation: Installation, database: FlakyDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    async with recording(installation, database) as recorder:
        database.away = True
        with monkeypatch.context() as broken:
            broken.setattr(os, "fsync", full)
            with pytest.raises(RecordingError, match="neither"):
                await recorder.record(answer("i1"))
        await recorder.record(answer("i2"))
        database.away = False
        await until_empty(recorder)
    assert "i2" in rows(installation)


STEPS = st.lists(
    st.sampled_from(["answer", "answer", "feedback", "away", "back", "lose", "kill", "torn"]),
    min_size=3,
    max_size=14,
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS, cut=st.integers(1, 400))
def test_whatever_happens_what_was_acknowledged_is_there_once(
    installation: Installation, database: FlakyDatabase, steps: list[str], cut: int
) -> None:
    async def live() -> tuple[set[str], Counter[str]]:
        spools = installation.settings.home / "spool"
        answers: set[str] = set()
        said: Counter[str] = Counter()
        recorder = Recorder(
            database, installation.keyring, spool=Spool(spools, max_bytes=1_000_000)
        )
        recorder.start()
        for number, step in enumerate(steps):
            if step == "answer":
                await recorder.record(answer(f"i{number}"))
                answers.add(f"i{number}")
            elif step == "feedback" and answers:
                await recorder.feedback(Feedback(interaction_id=min(answers), score=4))
                said[min(answers)] += 1
            elif step in ("away", "back"):
                database.away = step == "away"
            elif step == "lose":
                database.lost_commits = 1
            elif step in ("kill", "torn"):
                kill(recorder)
                for path in spooled(spools, "*.spool")[-1:] if step == "torn" else []:
                    line = path.read_bytes().splitlines()[0]
                    with path.open("ab") as file:
                        file.write(line[:cut])
                spool = Spool(spools, max_bytes=1_000_000)
                recorder = Recorder(database, installation.keyring, spool=spool)
                recorder.start()
        database.away, database.lost_commits = False, 0
        async with asyncio.timeout(60):
            # In this order nothing is missed: what a dead router parked is spooled when adopted.
            while spooled(spools, "parked") or spooled(spools, "*.spool") or recorder.spool.parked:
                await asyncio.sleep(0.005)
        await recorder.stop()
        return answers, said

    with installation.database.write() as session:
        session.exec(delete(UserInteraction))
    answers, said = asyncio.run(live())
    assert rows(installation) == sorted(answers)
    assert events(installation) == said


def test_the_spool_lies_closed_to_others(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", max_bytes=1_000)
    spool.append([b"x\n"])
    (path,) = (tmp_path / "spool").glob("*/*.spool")
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0
    spool.close()


async def test_a_process_killed_while_it_spools_loses_nothing_that_it_acknowledged(
    installation: Installation, database: FlakyDatabase
) -> None:
    home = installation.settings.home
    command = [sys.executable, "-m", "tests.serving.recording_process", str(home)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    safe: list[str] = []
    for count in (1, 7, 40):
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, env=environment
        )
        assert process.stdout is not None
        for _ in range(count):
            safe.append((await process.stdout.readline()).decode().strip())
        process.kill()
        safe += (await process.stdout.read()).decode().split()
        await process.wait()
    assert rows(installation) == []
    async with recording(installation, database):
        async with asyncio.timeout(30):
            while list((home / "spool").glob("*/*.spool")):
                await asyncio.sleep(0.01)
    assert len(safe) >= 48
    assert set(safe) <= set(rows(installation))
    # What was written in the very moment of death, and nobody heard of, may be there too.
    assert len(rows(installation)) <= len(safe) + 3
