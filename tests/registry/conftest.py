"""A fresh registry on each database for each test."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from registry import deployment
from registry.crypto import Keyring, load_keyring
from registry.db import Database, open_database
from registry.deployment import Act

NOW = datetime(2026, 1, 14, 12, tzinfo=UTC)


@contextmanager
def registry_at(url: str) -> Iterator[Database]:
    with closing(open_database(url)) as found:
        with found.write() as session:
            deployment.add_workload(session, "default", now=NOW)
        yield found


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with registry_at(database_url) as found:
        yield found


@pytest.fixture
def shared(postgresql_url: str) -> Iterator[Database]:
    """A registry that several write at once, as only PostgreSQL lets them."""
    with registry_at(postgresql_url) as found:
        yield found


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
