"""The recorder: durable before it returns, many in one transaction, none spoils the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import event
from sqlmodel import select

from registry.clock import utc_now
from registry.db import Database
from registry.errors import NotFoundError
from registry.interactions import Feedback, Interaction
from registry.models import UserInteraction
from serving.errors import RecordingError
from serving.recording import recorder as recorder_module
from serving.recording.recorder import Recorder
from serving.recording.records import seal
from serving.recording.spool import Spool
from tests.serving.conftest import Installation

pytestmark = pytest.mark.both_databases


@pytest.fixture
def spool(installation: Installation) -> Spool:
    return Spool(installation.settings.home / "spool", max_bytes=1_000_000)


@pytest.fixture
async def recorder(installation: Installation, spool: Spool) -> AsyncIterator[Recorder]:
    recorder = Recorder(installation.database, installation.keyring, spool=spool)
    recorder.start()
    yield recorder
    await recorder.stop()


def answer(number: int, **changes: str) -> Interaction:
    values = {"id": f"i{number}", "input_text": "a", "structured_prompt": "b", "model_output": "c"}
    return Interaction(created_at=utc_now(), **(values | changes))  # type: ignore[arg-type]


def written_together(database: Database) -> list[int]:
    """How many answers each statement that writes several brings, from now on."""
    found: list[int] = []

    def note(*told: Any) -> None:
        statement, parameters, is_many = told[2], told[3], told[5]
        if is_many and "INSERT INTO user_interactions" in statement:
            found.append(len(parameters))

    event.listen(database.engine, "before_cursor_execute", note)
    return found


def ids(installation: Installation) -> set[str]:
    with installation.database.read() as session:
        return set(session.exec(select(UserInteraction.id)).all())


async def test_many_answers_share_few_commits(
    recorder: Recorder, installation: Installation
) -> None:
    commits = []
    event.listen(installation.database.engine, "commit", commits.append)
    await asyncio.gather(*(recorder.record(answer(n)) for n in range(100)))
    assert ids(installation) == {f"i{n}" for n in range(100)}
    assert len(commits) <= 5


async def test_a_row_that_cannot_be_written_fails_alone(
    recorder: Recorder, installation: Installation
) -> None:
    outcomes = await asyncio.gather(
        recorder.record(answer(1)),
        recorder.record(answer(2, model_version="no such version")),
        recorder.record(answer(3)),
        recorder.feedback(Feedback(interaction_id="nobody", score=5)),
        recorder.feedback(Feedback(interaction_id="i1", score=4)),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [
        type(None),
        RecordingError,
        type(None),
        NotFoundError,
        type(None),
    ]
    assert ids(installation) == {"i1", "i3"}


async def test_rows_given_together_are_written_together_or_not_at_all(
    recorder: Recorder, installation: Installation
) -> None:
    with pytest.raises(RecordingError):
        await recorder.record(answer(1), answer(2, model_version="no such version"))
    assert ids(installation) == set()


def many(start: int) -> tuple[Interaction, ...]:
    """As much as one item may bring, of people who are new."""
    return tuple(answer(n, external_user_id=f"u{n}") for n in range(start, start + 500))


async def test_items_of_many_rows_are_not_gathered_in_one_transaction(
    recorder: Recorder, installation: Installation
) -> None:
    sizes = written_together(installation.database)
    await asyncio.gather(*(recorder.record(*many(start)) for start in range(0, 2000, 500)))
    assert sizes == [500] * 4
    assert len(ids(installation)) == 2000


async def test_items_of_many_rows_are_replayed_one_after_the_other(
    recorder: Recorder, installation: Installation, spool: Spool
) -> None:
    sizes = written_together(installation.database)
    spool.append([seal(many(start), installation.keyring) for start in range(0, 2000, 500)])
    async with asyncio.timeout(60):
        while recorder.into == "spool":
            await asyncio.sleep(0.01)
    assert sizes == [500] * 4
    assert len(ids(installation)) == 2000


async def test_what_waits_is_written_before_the_recorder_stops(
    installation: Installation, spool: Spool
) -> None:
    recorder = Recorder(installation.database, installation.keyring, spool=spool)
    recorder.start()
    tasks = [asyncio.create_task(recorder.record(answer(n))) for n in range(10)]
    await asyncio.sleep(0)
    await recorder.stop()
    await asyncio.gather(*tasks)
    assert len(ids(installation)) == 10


async def test_under_load_answers_wait_for_those_that_come_within_a_moment(
    recorder: Recorder, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "COMPANY_S", 20.0)
    commits = []
    event.listen(installation.database.engine, "commit", commits.append)
    # What it takes to count as load: many records, lately.
    for burst in (range(100), range(100, 200)):
        await asyncio.gather(*(recorder.record(answer(n)) for n in burst))
    commits.clear()

    async def make_and_record(number: int) -> None:
        with recorder.expecting():
            await asyncio.sleep((number - 200) * 0.03)  # longer than a transaction takes
            await recorder.record(answer(number))

    await asyncio.gather(*(make_and_record(n) for n in range(200, 216)))
    assert len(ids(installation)) == 216
    assert len(commits) <= 5  # of half of those on their way each time: 8, 4, 2, 1, 1


async def test_one_who_is_alone_waits_for_nobody(
    recorder: Recorder, installation: Installation
) -> None:
    commits = []
    event.listen(installation.database.engine, "commit", commits.append)
    await asyncio.gather(*(recorder.record(answer(n)) for n in range(200)))
    commits.clear()
    for number in range(200, 204):
        with recorder.expecting():
            await recorder.record(answer(number))
    assert len(commits) == 4
