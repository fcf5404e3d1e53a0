"""What a database says when it cannot be used, in one line that tells what to do."""

from __future__ import annotations

from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError, TimeoutError

from registry.errors import DatabaseError

DRIVER_MISSING = "PostgreSQL needs its driver: pip install 'kalimtak[postgresql]'"

ADVICE = (
    # SQLite
    ("unable to open database file", "check that its folder exists and that you may write there"),
    ("readonly database", "it is read-only: let this user write to the file and to its folder"),
    ("disk is full", "the disk is full: make room and try again; what was acknowledged is kept"),
    ("database is locked", "another process holds it: wait for that, or end it, and try again"),
    ("not a database", "the file is no SQLite database: check the URL, or restore a backup"),
    ("malformed", "the file is damaged: restore a backup"),
    ("no such table", "its schema is not this code's: run 'kalimtak db upgrade'"),
    ("no such column", "its schema is not this code's: run 'kalimtak db upgrade'"),
    ("disk i/o error", "the disk fails or is full: make room, or look at the disk"),
    # PostgreSQL
    ("password authentication failed", "check user and password in the URL"),
    ("no password supplied", "put the password into the URL, or into ~/.pgpass"),
    (
        "does not exist",
        "create it first; where tables are missing, run 'kalimtak db upgrade'",
    ),
    ("could not translate host", "check the host in the URL"),
    ("failed to resolve host", "check the host in the URL"),
    ("no space left", "the server's disk is full: make room and try again"),
    ("read-only transaction", "the server takes no writes: is it a standby?"),
    ("lock timeout", "somebody else holds it: try again"),
    ("too many clients", "the server has no connection left: raise max_connections"),
    ("connection", "check host and port, and that the server runs"),
    ("timeout", "check host and port, and that the server runs"),
)
"""Words of the drivers, and what to do; the first that fit."""


def explain(error: SQLAlchemyError, url: str) -> DatabaseError:
    """One line about `error`: which database, what it said, what to do."""
    said = _said(error)
    advice = next((todo for words, todo in ADVICE if words in said.lower()), None)
    where = f"cannot use database {shown(url)}: {said}"
    return DatabaseError(where if advice is None else f"{where}: {advice}")


def shown(url: str) -> str:
    """The URL without its password."""
    return make_url(url).render_as_string(hide_password=True)


def _said(error: SQLAlchemyError) -> str:
    """The driver's own words, without the statement and its values, which hold people's texts."""
    if isinstance(error, TimeoutError):
        return "no connection became free in time"
    cause = error.orig if isinstance(error, DBAPIError) else error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return (lines[0] if lines else type(cause).__name__)[:200].rstrip(":.")
