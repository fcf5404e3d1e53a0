from collections.abc import Callable

import pytest
from sqlalchemy.exc import IntegrityError

from registry import experiments, versions
from registry.db import Database
from registry.deployment import Act, desired
from registry.errors import ConflictError, NotFoundError
from registry.models import ModelVersion
from registry.versions import TRANSITIONS, Status
from tests.registry.conftest import NOW


def add(database: Database, name: str) -> str:
    with database.write() as session:
        return versions.register(
            session,
            version=name,
            workload="default",
            base_model="embedded",
            adapter_digest=name * 4,
            recipe="tiny_cpu",
            now=NOW,
        ).version


def test_names_follow_the_seeds_and_never_collide(database: Database) -> None:
    name = versions.version_name("Qwen/Qwen2-7B", NOW)
    assert name == f"Qwen/Qwen2-7B-ft-{int(NOW.timestamp())}"
    assert [add(database, name), add(database, name)] == [name, f"{name}-2"]


@pytest.mark.parametrize("current", list(Status))
@pytest.mark.parametrize("wanted", list(Status))
def test_the_lifecycle_allows_its_transitions_and_no_other(current: Status, wanted: Status) -> None:
    if wanted in TRANSITIONS[current]:
        versions.check_transition("v", current, wanted)
    else:
        with pytest.raises(ConflictError, match=f"is {current} and cannot become {wanted}"):
            versions.check_transition("v", current, wanted)


def test_a_rejected_version_never_serves(database: Database, act: Callable[[str], Act]) -> None:
    name = add(database, "v1")
    with database.write() as session:
        versions.transition(session, name, Status.REJECTED, reason="worse", now=NOW)
    with pytest.raises(ConflictError), database.write() as session:
        experiments.deploy(session, act("try"), workload="default", version=name)
    with database.read() as session:
        assert desired(session).champion is None
        assert versions.get(session, name).status_reason == "worse"


def test_the_database_allows_one_champion_per_workload(database: Database) -> None:
    add(database, "v1")
    add(database, "v2")

    def crown(name: str) -> None:
        with database.write() as session:
            row = session.get(ModelVersion, name)
            assert row is not None
            row.deployment_status = "champion"
            session.add(row)

    crown("v1")
    with pytest.raises(IntegrityError):
        crown("v2")


def test_an_unknown_version_is_not_found(database: Database) -> None:
    with pytest.raises(NotFoundError, match="nobody"), database.read() as session:
        versions.get(session, "nobody")
