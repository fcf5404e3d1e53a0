"""A fresh registry on each database for each test."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from registry import deployment
from registry.crypto import Keyring, load_keyring
from registry.db import Database, open_database
from registry.deployment import Act

NOW = datetime(2026, 1, 14, 12, tzinfo=UTC)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    found = open_database(database_url)
    with found.write() as session:
        deployment.add_workload(session, "default", now=NOW)
    yield found
    found.close()


@pytest.fixture
def shared(postgresql_url: str) -> Iterator[Database]:
    """A registry that several write at once, as only PostgreSQL lets them."""
    found = open_database(postgresql_url)
    with found.write() as session:
        deployment.add_workload(session, "default", now=NOW)
    yield found
    found.close()


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return load_keyring(tmp_path / "keys")


@pytest.fixture
def new_id() -> Callable[[], str]:
    counter = iter(range(1_000_000))
    return lambda: f"id-{next(counter):06}"


@pytest.fixture
def act(keyring: Keyring, new_id: Callable[[], str]) -> Callable[[str], Act]:
    return lambda reason: Act("test", reason, NOW, keyring, new_id)
