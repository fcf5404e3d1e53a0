from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlmodel import SQLModel

import registry.models
from registry.db import Database, open_database
from registry.errors import DatabaseError
from registry.models import TrainingData, UserInteraction
from tests.registry.conftest import NOW


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
    (tmp_path / "old.db").touch(0o644)
    open_database(f"sqlite:///{tmp_path}/old.db").close()
    assert (tmp_path / "old.db").stat().st_mode & 0o777 == 0o644
    assert tmp_path.stat().st_mode & 0o777 == 0o755
