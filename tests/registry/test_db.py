import os
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlmodel import Session, SQLModel

import registry.models
from registry import deployment
from registry.db import Database, open_database
from registry.errors import DatabaseError
from registry.models import TrainingData, UserInteraction
from tests.registry.conftest import NOW
from tests.support.postgresql import Server, while_held

ROOT = Path(__file__).parents[2]


def test_migrations_make_exactly_the_models(database: Database) -> None:
    assert registry.models.__all__
    database.check()
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, SQLModel.metadata) == []


def test_a_blank_database_is_told_to_upgrade(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'blank.db'}")
    with pytest.raises(DatabaseError, match="kalimtak db upgrade"):
        database.check()


OPEN = """
import sys
from registry import deployment
from registry.clock import utc_now
from registry.db import open_database
print("ready", flush=True)
sys.stdin.readline()
database = open_database(sys.argv[1])
with database.write() as session:
    deployment.add_workload(session, "default", now=utc_now())
"""


def test_programs_that_open_a_blank_database_at_once_wait_for_the_first(
    postgresql: Server,
) -> None:
    url = postgresql.create(template="template0")
    command = [sys.executable, "-c", OPEN, url]
    programs = [
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for _ in range(3)
    ]
    for program in programs:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
    for program in programs:
        assert program.stdin is not None
        program.stdin.write("go\n")
        program.stdin.flush()
    said = [program.communicate()[1] for program in programs]
    assert [program.returncode for program in programs] == [0, 0, 0], said
    database = Database(url)
    database.check()
    database.close()
    postgresql.drop(url)


def test_two_may_add_a_workload_at_once(shared: Database) -> None:
    def add(session: Session) -> bool:
        return deployment.add_workload(session, "other", now=NOW)

    def add_too() -> bool:
        with shared.write() as session:
            return add(session)

    assert while_held(shared, add, add_too) is False
    with shared.read() as session:
        assert deployment.desired(session, "other").generation == 0


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new.db'}"
    database = open_database(url)
    with database.write() as session:
        session.connection().execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseError, match="9999"):
        open_database(url)


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "mysql://u:hunter2@host/db",
        "sqlite:////proc/no/such.db",
        "postgresql:/u:hunter2@host/db",
        "postgresql://u:hunter2@host:port/db",
    ],
)
def test_an_unusable_url_is_one_clear_error(url: str) -> None:
    with pytest.raises(DatabaseError) as error:
        open_database(url)
    assert "\n" not in str(error.value)
    assert "hunter2" not in str(error.value)


def test_foreign_keys_are_enforced(database: Database) -> None:
    with pytest.raises(IntegrityError), database.write() as session:
        session.add(
            TrainingData(
                id="t",
                source_interaction_id="nobody",
                input_prompt="a",
                target_output="b",
                content_hash="c",
                cluster_id="d",
                split="train",
                created_at=NOW,
            )
        )


def test_an_impossible_score_is_refused_by_the_database(database: Database) -> None:
    with pytest.raises(IntegrityError), database.write() as session:
        session.add(
            UserInteraction(
                id="i",
                input_text="a",
                structured_prompt="b",
                model_output="c",
                feedback_score=6,
                created_at=NOW,
                updated_at=NOW,
            )
        )


def test_an_error_tells_no_values(database: Database) -> None:
    with pytest.raises(DBAPIError) as found, database.read() as session:
        session.connection().execute(text("SELECT :secret FROM nowhere"), {"secret": "a secret"})
    assert "a secret" not in str(found.value)


def test_a_naive_time_is_refused(database: Database) -> None:
    from registry.models import Workload

    with pytest.raises(Exception, match="naive datetime"), database.write() as session:
        session.add(Workload(name="w", created_at=NOW.replace(tzinfo=None)))


def test_what_is_made_is_for_its_owner_alone_and_what_is_there_stays_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    database = open_database(f"sqlite:///{tmp_path}/var/home/new.db")
    with database.write() as session:
        session.connection().execute(text("SELECT 1"))
        made = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    database.close()
    assert made == {
        "var": 0o700,
        "home": 0o700,
        "new.db": 0o600,
        "new.db-wal": 0o600,
        "new.db-shm": 0o600,
    }
    (tmp_path / "old.db").touch()
    (tmp_path / "old.db").chmod(0o644)
    open_database(f"sqlite:///{tmp_path}/old.db").close()
    assert (tmp_path / "old.db").stat().st_mode & 0o777 == 0o644
    assert tmp_path.stat().st_mode & 0o777 == 0o755
