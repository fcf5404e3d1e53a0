"""Moving windows of accepted requests, shared by all processes of one machine: an SQLite file.

A storage of the `limits` library, whose own in-memory one counts for each process alone. Each
key has a ring of as many moments as the limit allows; a request is accepted where the oldest
of them has left the window, so that a hit costs the same whatever the limit is.

Nothing here is worth a sync to disk: the file is named by the boot of the machine, and one
that a power cut may have damaged is never opened again.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NoReturn

from limits.aio.storage import MovingWindowSupport, Storage

BUSY_TIMEOUT_S = 0.25
"""A hit waits at most this long for other processes; a transaction of theirs takes 50 µs."""
FORGET_TIMEOUT_S = 10.0
PURGE_EVERY = 50
PURGE_KEYS = 100
"""Every so many hits, so many windows that have ended are removed: more than begin meanwhile."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS windows (
    key TEXT PRIMARY KEY, hits INTEGER NOT NULL, ends REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS windows_ends ON windows (ends);
CREATE TABLE IF NOT EXISTS hits (
    key TEXT NOT NULL, slot INTEGER NOT NULL, at REAL NOT NULL, PRIMARY KEY (key, slot)
) WITHOUT ROWID;
"""
_LOOK = """
SELECT windows.hits, hits.at FROM windows LEFT JOIN hits
ON hits.key = windows.key AND hits.slot = (windows.hits + ? - 1) % ? WHERE windows.key = ?
"""
_COUNT = """
INSERT INTO windows (key, hits, ends) VALUES (?, ?, ?)
ON CONFLICT (key) DO UPDATE SET hits = excluded.hits, ends = excluded.ends
"""
_HIT = """
INSERT INTO hits (key, slot, at) VALUES (?, ?, ?)
ON CONFLICT (key, slot) DO UPDATE SET at = excluded.at
"""
_WINDOW = "SELECT min(at), count(*) FROM hits WHERE key = ? AND at > ? AND at <= ?"
_ENDED = "SELECT key FROM windows WHERE ends <= ? LIMIT ?"
_FORGET_HITS = "DELETE FROM hits WHERE key IN (SELECT key FROM windows WHERE ends <= ?)"
_FORGET = "DELETE FROM windows WHERE ends <= ?"


class WindowStore(Storage, MovingWindowSupport):
    """Windows in `folder`. Use it from one thread, that of the event loop.

    `clock` tells seconds since the epoch, the same to every process. It is asked with the
    file's lock held, so that moments never go back unless the machine's clock does; a moment
    in the future then counts as past, rather than shut somebody out.
    """

    STORAGE_SCHEME = None

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(wrap_exceptions=True)
        self._folder = folder
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        self._hits_until_purge = PURGE_EVERY

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        """What makes a hit fail; seen outside as `limits.errors.StorageError`."""
        return (sqlite3.Error, OSError)

    async def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Accept `amount` requests, at most `limit` in any `expiry` seconds, or none of them."""
        if amount > limit:
            return False
        with self._transaction() as connection:
            now = self._clock()
            hits, oldest = connection.execute(_LOOK, (amount, limit, key)).fetchone() or (0, None)
            if oldest is not None and now - expiry < oldest <= now:
                return False
            connection.execute(_COUNT, (key, hits + amount, now + expiry))
            for hit in range(hits, hits + amount):
                connection.execute(_HIT, (key, hit % limit, now))
            self._purge(connection, now)
        return True

    async def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:  # noqa: ARG002
        """When the oldest request in the window was accepted, and how many are in it."""
        now = self._clock()
        start, count = self._open().execute(_WINDOW, (key, now - expiry, now)).fetchone()
        return (now, 0) if start is None else (start, count)

    async def clear(self, key: str) -> None:
        """Forget a window."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM hits WHERE key = ?", (key,))
            connection.execute("DELETE FROM windows WHERE key = ?", (key,))

    async def reset(self) -> int:
        """Forget all windows; how many there were."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM hits")
            return connection.execute("DELETE FROM windows").rowcount

    async def check(self) -> bool:
        """Whether the file can be used."""
        self._open().execute("SELECT 1")
        return True

    async def incr(self, key: str, expiry: int, amount: int = 1) -> NoReturn:
        """Not offered: fixed windows let twice the limit through at their border."""
        raise NotImplementedError("only moving windows are kept")

    get: Any = incr
    get_expiry: Any = incr

    def close(self) -> None:
        """Close the file; the next hit would open it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._open()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def _purge(self, connection: sqlite3.Connection, now: float) -> None:
        self._hits_until_purge -= 1
        if self._hits_until_purge > 0:
            return
        self._hits_until_purge = PURGE_EVERY
        ended = connection.execute(_ENDED, (now, PURGE_KEYS)).fetchall()
        connection.executemany("DELETE FROM hits WHERE key = ?", ended)
        connection.executemany("DELETE FROM windows WHERE key = ?", ended)

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = _connect(self._folder)
        return self._connection


def forget_ended(folder: Path, *, now: float) -> int:
    """Forget the windows in all files of a folder that have ended; how many there were.

    None before its end, whoever wants to be forgotten: it would begin anew.
    """
    found = 0
    for path in folder.glob("limits-*.db"):
        with closing(sqlite3.connect(path, timeout=FORGET_TIMEOUT_S)) as connection:
            connection.execute("PRAGMA secure_delete=ON")
            with connection:
                connection.execute(_FORGET_HITS, (now,))
                found += connection.execute(_FORGET, (now,)).rowcount
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return found


def _connect(folder: Path) -> sqlite3.Connection:
    path = folder / f"limits-{BOOT_ID.read_text().strip()}.db"
    for earlier in folder.glob("limits-*.db*"):
        if not earlier.name.startswith(path.name):
            earlier.unlink(missing_ok=True)
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=OFF")
        connection.executescript(_SCHEMA)
    except BaseException:
        connection.close()
        raise
    return connection
