"""Every act leaves its entry in the audit log, or does not happen.

The lists below and `tests.support.act_cases` name every command, administrative route and
deployment of the product: a new one fails here until it is said whether it acts, and what it
leaves in the log.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.routing import APIRoute
from typer.main import get_command

from flows import trail
from flows.cli import app
from flows.context import Context
from registry import audit
from serving.api import app as serving_app
from tests.flows.conftest import FakeClock
from tests.support.act_cases import CASES
from tests.support.acting import World

ROOT = Path(__file__).parent.parent.parent
UNWRITABLE = (
    "CREATE TRIGGER read_only BEFORE INSERT ON audit_log "
    "BEGIN SELECT RAISE(ABORT, 'the audit log cannot be written'); END"
)
READING_COMMANDS = {
    "audit head",
    "audit list",
    "audit verify",
    "backup verify",
    "check",
    "db check",
    "erasures list",
    "erasures show",
    "erasures verify",
    "evaluate",
    "experiment list",
    "experiment replay",
    "experiment show",
    "history",
    "key list",
    "keys list",
    "lineage",
    "scorer drift",
    "scorer explain",
    "scorer list",
    "status",
    "versions",
    "workload list",
}
"""They change nothing that is known or decided. `evaluate` builds a dataset, see there."""
ELSEWHERE = {
    "demo": "an installation of its own, whose flows are these",
    "federate": "each site builds its dataset, which its log tells: test_federation.py",
    "db upgrade": "the schema, which alembic_version tells",
    "keys reseal": "how values are sealed, not what they are",
    "up": "processes of this machine; the settings that they start with are told, see below",
    "down": "processes of this machine",
}


@pytest.fixture
def world(context: Context, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.chdir(context.settings.home.parent)
    monkeypatch.setenv("KALIMTAK_TRAINING__MIN_SAMPLES", "20")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    before = dict(os.environ)
    yield World(context, clock)
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize("name", CASES)
def test_an_act_leaves_its_entry_or_does_not_happen(world: World, name: str) -> None:
    case = CASES[name]
    case.before(world)
    before, num_entries, folders = (
        world.everything(),
        len(world.entries()),
        sorted(Path().iterdir()),
    )
    world.execute(UNWRITABLE)
    with suppress(Exception):
        case.act(world)
    assert world.everything() == before
    assert sorted(Path().iterdir()) == folders
    world.execute("DROP TRIGGER read_only")
    case.act(world)
    assert world.entries()[num_entries:] == case.leaves


def test_settings_are_told_when_they_have_changed(context: Context) -> None:
    assert trail.settings_in_force(context, actor="cli")
    assert not trail.settings_in_force(context, actor="cli")
    gate = context.settings.gate.model_copy(update={"max_accuracy_loss": 0.2})
    changed = replace(context, settings=context.settings.model_copy(update={"gate": gate}))
    assert trail.settings_in_force(changed, actor="cli")
    with context.database.read() as session:
        found = [row.details["settings"] for row in audit.entries(session, limit=2)]
    assert [told["gate"] for told in found] == [{"max_accuracy_loss": 0.2}, {}]
    assert found[0]["training"] == {"min_samples": 20}


def commands(group: Any, path: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            if command.invoke_without_command:
                yield f"{path}{name}"
            yield from commands(command, f"{path}{name} ")
        else:
            yield f"{path}{name}"


def test_every_command_is_known_to_read_or_to_act() -> None:
    acting = {command for case in CASES.values() for command in case.commands}
    # What restore leaves is seen in tests/registry/test_backup.py.
    known = acting | READING_COMMANDS | set(ELSEWHERE) | {"restore"}
    assert set(commands(get_command(app))) == known


def test_every_administrative_route_that_changes_something_is_an_act() -> None:
    acting = {route for case in CASES.values() for route in case.routes}
    found = {
        f"{method} {route.path}"
        for module in serving_app.LIMITED
        for route in module.router.routes
        if isinstance(route, APIRoute) and route.path.startswith("/api/admin")
        for method in route.methods - {"GET", "HEAD"}
    }
    assert found == acting


def test_every_deployment_is_an_act() -> None:
    told = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))
    found = {
        f"{item['entrypoint'].rpartition('.')[2].replace('_', '-')}/{item['name']}"
        for item in told["deployments"]
    }
    assert found == {name for case in CASES.values() for name in case.deployments}
