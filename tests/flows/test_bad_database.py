"""A database that cannot be used is one line that says what to do, and loses nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from flows import cli
from registry.db import Database, open_database
from registry.errors import DatabaseError
from registry.models import Workload
from tests.registry.conftest import NOW
from tests.support.network import free_port


def kalimtak(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    url: str,
    *arguments: str,
) -> str:
    """The one line that the command writes to stderr, ending with exit code 2."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("KALIMTAK_DATABASE_URL", url)
    monkeypatch.setattr(sys, "argv", ["kalimtak", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capsys.readouterr()
    assert ended.value.code == 2
    assert told.out == ""
    assert told.err.startswith("kalimtak: ")
    assert len(told.err.splitlines()) == 1
    return told.err


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("nonsense", "use sqlite:///path or postgresql://"),
        ("mysql://host/db", "use sqlite or postgresql"),
        ("sqlite://", "names no file"),
        ("sqlite:////proc/no/such.db", "cannot create"),
        ("sqlite:///{folder}", "check that its folder exists"),
        ("sqlite:///{folder}/text.db", "no SQLite database"),
        ("postgresql://me:secret@127.0.0.1:{port}/db", "check host and port"),
        ("postgresql://me@no.such.host.invalid/db", "host"),
        ("postgresql+nodriver://me@host/db", "pip install"),
    ],
)
@pytest.mark.parametrize("command", ["check", "upgrade"])
def test_a_wrong_url_is_told(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    url: str,
    complaint: str,
    command: str,
) -> None:
    (tmp_path / "text.db").write_text("This is a text of more than a hundred characters. " * 10)
    url = url.format(folder=tmp_path, port=free_port())
    told = kalimtak(monkeypatch, capsys, tmp_path, url, "db", command)
    assert complaint in told
    assert "secret" not in told


def test_a_missing_database_on_the_server_is_told(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    postgresql_url: str,
) -> None:
    head, _, query = postgresql_url.partition("?")
    url = f"{head}_gone?{query}"
    assert "create it first" in kalimtak(monkeypatch, capsys, tmp_path, url, "db", "upgrade")


def test_a_newer_database_is_refused_by_every_command(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    database_url: str,
) -> None:
    database = open_database(database_url)
    with database.write() as session:
        session.connection().execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    for command in (("db", "upgrade"), ("db", "check"), ("check",), ("status",)):
        told = kalimtak(monkeypatch, capsys, tmp_path, database_url, *command)
        assert "9999, which is newer than this code: upgrade kalimtak" in told


@contextmanager
def kept(database: Database) -> Iterator[None]:
    """What was there before is there afterwards, and the database takes rows again."""
    with database.write() as session:
        session.add(Workload(name="before", created_at=NOW))
    yield
    with database.write() as session:
        session.add(Workload(name="after", created_at=NOW))
    with database.read() as session:
        assert session.get(Workload, "before") is not None
        found = session.connection().execute(text("SELECT count(*) FROM workloads")).scalar()
    assert found == 2


def told_by_python(url: str, preparation: str, *, size: int = 1) -> str:
    """What a process is told that prepares itself so, and then writes `size` bytes."""
    result = subprocess.run(
        [sys.executable, "-c", WRITE.format(preparation=preparation), url, str(size)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert len(result.stdout.splitlines()) == 1
    return result.stdout


WRITE = """
import os, resource, signal, sys
{preparation}
from sqlalchemy.exc import SQLAlchemyError
from registry.db import Database
from registry.db_errors import explain
database = Database(sys.argv[1], patience_s=0.2)
row = "INSERT INTO workloads (name, created_at) VALUES (hex(zeroblob(" + sys.argv[2] + ")), '2026')"
try:
    with database.write() as session:
        session.connection().exec_driver_sql(row)
except SQLAlchemyError as error:
    print(explain(error, database.url))
"""


BECOME_SOMEBODY_ELSE = """
import registry.db, registry.db_errors
database = registry.db.Database(sys.argv[1])  # so that all is imported while it can be
database.check()
database.close()
os.getuid() or os.setuid(65534)
"""


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Database]:
    database = open_database(f"sqlite:///{tmp_path / 'k.db'}")
    yield database
    database.close()


def test_a_full_disk_is_told_and_what_was_there_stays(there: Database, tmp_path: Path) -> None:
    with kept(there):
        # The kernel refuses more, as a full disk does.
        most = (tmp_path / "k.db").stat().st_size + 500_000
        limit = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, {most}))"
        ignore = "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)"
        assert "make room" in told_by_python(there.url, f"{ignore}; {limit}", size=5_000_000)


def test_a_locked_database_is_told_and_comes_back(there: Database) -> None:
    with kept(there), there.write() as session:
        session.connection()
        assert "another process holds it" in told_by_python(there.url, "")


def test_a_read_only_file_is_told_and_comes_back() -> None:
    # Not in pytest's own folder, which is closed to others.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        database = open_database(f"sqlite:///{folder / 'k.db'}")
        with kept(database):
            database.close()
            (folder / "k.db").chmod(0o444)
            folder.chmod(0o555)
            # Root may write anywhere: the process becomes somebody else.
            told = told_by_python(database.url, BECOME_SOMEBODY_ELSE)
            folder.chmod(0o755)
            (folder / "k.db").chmod(0o644)
        database.close()
    assert "let this user write" in told or "you may write there" in told


def test_without_its_driver_postgresql_is_told_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(DatabaseError, match=r"pip install 'kalimtak\[postgresql\]'"):
        Database("postgresql://me@host/db")
