"""For all tests: both databases."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.postgresql import Server, postgresql_server

DATABASES = ("sqlite", "postgresql")

# Speed belongs to the benchmarks: a busy machine must fail no test.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _environment_as_it_was() -> Iterator[None]:
    """Commands that run in this process set what Ray and Prefect read from the environment."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A PostgreSQL server for the whole session: it takes some seconds to start."""
    with postgresql_server() as server:
        yield server


@pytest.fixture
def postgresql_url(postgresql: Server) -> Iterator[str]:
    """A fresh database with the product's schema."""
    url = postgresql.create()
    yield url
    postgresql.drop(url)


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh database of each kind in turn."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgresql_url"))
    return f"sqlite:///{tmp_path / 'test.db'}"


@pytest.fixture
def registry_url(request: pytest.FixtureRequest) -> str | None:
    """For settings: None (the installation's own file), and with the mark `both_databases`
    a fresh PostgreSQL database in turn."""
    if getattr(request, "param", "sqlite") == "postgresql":
        return str(request.getfixturevalue("postgresql_url"))
    return None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what is marked `both_databases` on each of them."""
    marked = metafunc.definition.get_closest_marker("both_databases") is not None
    if marked and "registry_url" in metafunc.fixturenames:
        metafunc.parametrize("registry_url", DATABASES, indirect=True)
