"""A database that goes away and comes back when told to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import OperationalError
from sqlmodel import Session

from registry.db import Database


class FlakyDatabase(Database):
    """While `away`, nothing can be written; `lost_commits` are kept but look like failures."""

    away = False
    lost_commits = 0

    @contextmanager
    def write(self) -> Iterator[Session]:
        if self.away:
            raise OperationalError("BEGIN", {}, Exception("the server is gone"))
        with super().write() as session:
            yield session
        if self.lost_commits:
            self.lost_commits -= 1
            raise OperationalError("COMMIT", {}, Exception("the connection was lost"))
