"""A queue of lines on the disk, for the time when the database is away.

    <folder>/<owner>/lock            held as long as the owner lives
    <folder>/<owner>/00000001.spool  lines, oldest first; flushed to the disk before `append` ends
    <folder>/<owner>/parked          lines that wait for something that they depend on
    <folder>/quarantine.jsonl        lines that nobody will ever take, and why

Each router owns a folder. The lock goes when its process does, however it dies: then another
router adopts what lies there. Lines leave only after they were taken, so that a crash may
have them taken twice, and never not at all. One thread at a time.
"""

import fcntl
import json
import logging
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from registry.clock import new_id
from serving.errors import OverloadedError

SEGMENT_BYTES = 8 * 2**20
SUFFIX = ".spool"
PARKED = "parked"
LOCK = "lock"
QUARANTINE = "quarantine.jsonl"

logger = logging.getLogger(__name__)


@dataclass
class _Segment:
    """One file: whole lines up to `size`, those before `taken` done with."""

    path: Path
    rows: int = 0
    size: int = 0
    taken: int = 0


class Spool:
    """The spool of one router."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._own: Path | None = None
        self._lock: int | None = None
        self._segments: list[_Segment] = []
        self._file: int | None = None
        """Descriptor of the last segment, while it is written to."""
        self._next = 1
        self._parked: list[bytes] = []

    @property
    def rows(self) -> int:
        """Lines that wait to be taken."""
        return sum(segment.rows for segment in self._segments)

    @property
    def size_bytes(self) -> int:
        """Bytes that wait, parked ones included."""
        waiting = sum(segment.size - segment.taken for segment in self._segments)
        return waiting + sum(map(len, self._parked))

    @property
    def has_room(self) -> bool:
        """Whether the bound is not reached."""
        return self.size_bytes < self._max_bytes

    def append(self, lines: Sequence[bytes]) -> None:
        """Add lines; they are on the disk when this returns, or none of them counts.

        Raises `OverloadedError` past the bound, `OSError` where the disk does not take them.
        """
        data = b"".join(lines)
        if self.size_bytes + len(data) > self._max_bytes:
            raise OverloadedError("the database is away and the spool is full")
        segment, file = self._writable()
        try:
            _write(file, data)
        except OSError:
            # What reached the disk is unknown after a failed flush: this file has had it.
            with suppress(OSError):
                os.ftruncate(file, segment.size)
            self._seal()
            raise
        segment.size += len(data)
        segment.rows += len(lines)
        if segment.size > SEGMENT_BYTES:
            self._seal()

    def peek(self, count: int) -> list[bytes]:
        """The oldest lines of one file, at most `count`; empty when nothing waits."""
        if not self._segments:
            return []
        segment = self._segments[0]
        lines = []
        with segment.path.open("rb") as file:
            file.seek(segment.taken)
            for _ in range(min(count, segment.rows)):
                lines.append(file.readline())
        return lines

    def drop(self, lines: Sequence[bytes]) -> None:
        """Forget what `peek` has returned: it has been taken."""
        segment = self._segments[0]
        segment.taken += sum(map(len, lines))
        segment.rows -= len(lines)
        if segment.rows == 0:
            if len(self._segments) == 1:
                self._seal()
            del self._segments[0]
            try:
                segment.path.unlink(missing_ok=True)
            except OSError as error:
                # What stays is taken once more by whoever adopts it, which does no harm.
                logger.warning("%s was taken and cannot be removed: %s", segment.path, error)

    @property
    def parked(self) -> Sequence[bytes]:
        """Lines set aside, which hold up nothing."""
        return self._parked

    def park(self, lines: Iterable[bytes]) -> None:
        """Set these lines aside, instead of those that were. Raises `OSError`."""
        kept = list(lines)
        if kept == self._parked:
            return
        replace_file(self._open() / PARKED, kept)
        self._parked = kept

    def quarantine(self, line: bytes, reason: str) -> None:
        """Keep a line that nobody takes where a person can look at it. Raises `OSError`."""
        entry = {
            "at": datetime.now(UTC).isoformat(),
            "reason": reason,
            "record": line.decode("ascii", "replace").rstrip("\n"),
        }
        path = self._folder / QUARANTINE
        file = open_locked(path)
        try:
            _add_line(file, json.dumps(entry).encode() + b"\n")
        finally:
            os.close(file)
        logger.error("a spooled record went to %s: %s", path, reason)

    def others_wait(self) -> bool:
        """Whether another router's folder holds something that is not in the database yet."""
        return any(path.parent != self._own for path in spooled(self._folder, f"*{SUFFIX}"))

    def adopt(self) -> int:
        """Take over what dead routers left; the number of lines. Raises `OSError`."""
        found = 0
        for path in spooled(self._folder, LOCK):
            if path.parent == self._own:
                continue
            lock = try_lock(path)
            if lock is None:
                continue
            try:
                if path.exists():  # nobody else was quicker
                    found += self._take_over(path.parent)
            finally:
                os.close(lock)
        return found

    def close(self) -> None:
        """Let go; what still waits is adopted by the next router."""
        self._seal()
        if self._own is not None and self._lock is not None:
            if not self._segments and not self._parked:
                _remove(self._own)
            os.close(self._lock)
        self._own = self._lock = None

    def _take_over(self, orphan: Path) -> int:
        rows = 0
        left = sorted(orphan.glob(f"*{SUFFIX}")) + sorted(orphan.glob(PARKED))
        if left:
            own = self._open()
            self._seal()
            for path in left:
                moved = own / self._name()
                path.rename(moved)
                segment = _scan(moved)
                rows += segment.rows
                if segment.rows:
                    self._segments.append(segment)
                else:
                    moved.unlink()
            _sync_folder(own)
            logger.warning("took over %d spooled records of a router that died", rows)
        _remove(orphan)
        return rows

    def _writable(self) -> tuple[_Segment, int]:
        own = self._open()
        if self._file is None:
            path = own / self._name()
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
            self._file = os.open(path, flags, 0o600)
            self._segments.append(_Segment(path))
            _sync_folder(own)
        return self._segments[-1], self._file

    def _seal(self) -> None:
        if self._file is None:
            return
        os.close(self._file)
        self._file = None
        if self._segments[-1].size == 0:
            self._segments.pop().path.unlink(missing_ok=True)

    def _name(self) -> str:
        name = f"{self._next:08d}{SUFFIX}"
        self._next += 1
        return name

    def _open(self) -> Path:
        """The own folder, made and locked on first use."""
        while self._own is None:
            own = self._folder / new_id()
            own.mkdir(parents=True, mode=0o700)
            lock = try_lock(own / LOCK, create=True)
            # Another router may have taken the folder for an orphan's in this very moment.
            if lock is None:
                continue
            if not (own / LOCK).exists():
                os.close(lock)
                continue
            self._own, self._lock = own, lock
            _sync_folder(self._folder)
        return self._own


def spooled(folder: Path, pattern: str) -> list[Path]:
    """Files of all owners below `folder`, in order; an owner may vanish meanwhile."""
    found: list[Path] = []
    for owner in sorted(folder.glob("*/")):
        with suppress(FileNotFoundError):
            found += sorted(owner.glob(pattern))
    return found


def open_locked(path: Path) -> int:
    """A descriptor to append to `path` with, which nobody else appends to or replaces now."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            if os.path.samestat(os.fstat(file), path.stat()):
                return file
        except FileNotFoundError:
            logger.debug("%s was replaced while it was opened", path)
        os.close(file)


def replace_file(path: Path, lines: Iterable[bytes]) -> None:
    """Put `lines` in the place of the file's content, whole; without any, remove the file."""
    kept = b"".join(lines)
    if kept:
        temporary = path.with_name(f"{path.name}.tmp")
        _create(temporary, kept)
        temporary.replace(path)
    else:
        path.unlink(missing_ok=True)
    _sync_folder(path.parent)


def try_lock(path: Path, *, create: bool = False) -> int | None:
    """A descriptor that holds the lock; None where there is no such file, or another has it."""
    try:
        file = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


def _scan(path: Path) -> _Segment:
    """A file that somebody else wrote: a last line without an end never was acknowledged."""
    data = path.read_bytes()
    size = data.rfind(b"\n") + 1
    if size < len(data):
        logger.warning("%s: %d bytes of an unfinished line were left out", path, len(data) - size)
    return _Segment(path, rows=data.count(b"\n"), size=size)


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
    os.fsync(file)


def _add_line(file: int, line: bytes) -> None:
    """Append a line, whole or not at all, and not to one that a crash has torn. The file is locked.

    Raises `OSError`.
    """
    size = os.fstat(file).st_size
    is_torn = size > 0 and os.pread(file, 1, size - 1) != b"\n"
    try:
        _write(file, b"\n" + line if is_torn else line)
    except OSError:
        with suppress(OSError):
            os.ftruncate(file, size)
        raise


def _create(path: Path, data: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        _write(file, data)
    finally:
        os.close(file)


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
