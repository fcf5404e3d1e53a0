"""API keys are looked up once for many requests, and never held for good too long."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from sqlalchemy import event

from registry import keys
from serving.access.keys import AHEAD_S, FRESH_S, KeyLookup
from tests.serving.conftest import Installation


@dataclass
class FakeTime:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def text(installation: Installation) -> str:
    with installation.database.write() as session:
        return keys.create(session, installation.act(), name="app", role="user").text


@pytest.fixture
def reads(installation: Installation) -> list[str]:
    """Statements that read keys."""
    found: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if statement.startswith("SELECT") and "api_keys" in statement:
            found.append(statement)

    event.listen(installation.database.engine, "before_cursor_execute", note)
    return found


async def test_requests_that_come_together_share_one_look(
    installation: Installation, text: str, reads: list[str]
) -> None:
    lookup = KeyLookup(installation.database, installation.keyring, monotonic=FakeTime())
    found = await asyncio.gather(*(lookup.get(text) for _ in range(20)))
    assert all(key is not None for key in found)
    # One is the note of its use.
    await lookup.finish()
    assert len(reads) <= 2


async def test_one_who_leaves_does_not_take_the_look_away_from_the_others(
    installation: Installation, text: str
) -> None:
    lookup = KeyLookup(installation.database, installation.keyring, monotonic=FakeTime())
    first, second = (asyncio.create_task(lookup.get(text)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second is not None
    await lookup.finish()


async def test_a_key_in_use_is_read_again_behind_the_requests_and_refused_once_revoked(
    installation: Installation, text: str, reads: list[str]
) -> None:
    time = FakeTime()
    lookup = KeyLookup(installation.database, installation.keyring, monotonic=time)
    assert await lookup.get(text) is not None
    await lookup.finish()
    with installation.database.write() as session:
        keys.revoke(session, installation.act(), keys.prefix_of(text) or "")
    reads.clear()
    time.now += AHEAD_S + 0.1
    await lookup.get(text)
    await lookup.finish()
    assert len(reads) == 1
    assert await lookup.get(text) is None


async def test_a_revoked_key_is_refused_after_the_time_that_is_promised(
    installation: Installation, text: str
) -> None:
    time = FakeTime()
    lookup = KeyLookup(installation.database, installation.keyring, monotonic=time)
    assert await lookup.get(text) is not None
    await lookup.finish()
    with installation.database.write() as session:
        keys.revoke(session, installation.act(), keys.prefix_of(text) or "")
    time.now += FRESH_S
    assert await lookup.get(text) is None
