"""Every act leaves its entry in the audit log, or does not happen.

The lists below name every command, administrative route and deployment of the product: a new
one fails here until it is said whether it acts, and what it leaves in the log.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from fastapi.routing import APIRoute
from sqlalchemy import text
from sqlmodel import SQLModel, select
from typer.main import get_command
from typer.testing import CliRunner

from flows import trail
from flows.check_triggers import check
from flows.cli import app
from flows.context import Context
from flows.experiment import look
from flows.retention import run_retention
from flows.retrain import run_retrain
from flows.steps import PlainSteps
from registry import audit, by_hand, experiments, keys, runs, scorers, versions
from registry.deployment import AUDIT_PURPOSE
from registry.models import AuditEntry
from serving.api import app as serving_app
from tests.flows.conftest import FakeClock
from tests.support.fake_learner import FakeLearner
from tests.support.opinions import log_use
from tests.support.usage import log_liked, log_trial

ROOT = Path(__file__).parent.parent.parent
UNWRITABLE = (
    "CREATE TRIGGER read_only BEFORE INSERT ON audit_log "
    "BEGIN SELECT RAISE(ABORT, 'the audit log cannot be written'); END"
)
# Tables that no act changes, or that measure only.
UNAUDITED = {"audit_log", "audit_head", "replica_status", "trigger_checks"}

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


@dataclass
class World:
    context: Context
    clock: FakeClock

    def cli(self, *arguments: str) -> None:
        """Run a command in this process."""
        CliRunner().invoke(app, list(arguments), catch_exceptions=False)

    def retrain(self, accuracy: float = 0.8, **options: Any) -> str:
        found = run_retrain(self.context, FakeLearner([accuracy]), workload="default", **options)
        return found.version or ""

    def registered(self, num: int) -> list[str]:
        """Versions v1, v2, … that wait."""
        names = [f"v{number + 1}" for number in range(num)]
        with self.context.database.write() as session:
            for name in names:
                versions.register(
                    session,
                    version=name,
                    workload="default",
                    base_model="base",
                    adapter_digest=name[-1] * 64,
                    recipe="r",
                    now=self.clock(),
                )
        return names

    def try_out(self) -> str:
        """Have a version on trial; the trial's id."""
        log_liked(self.context, 30, at=self.clock())
        self.retrain()
        with self.context.database.read() as session:
            return by_hand.running(session, workload="default").id

    def judge(self, *, good: bool) -> None:
        """Have the trial's people say clearly what they think."""
        trial = self.try_out()
        half(self)
        self.clock.move(hours=60)
        for role, liked in (("default", not good), ("challenger", good)):
            log_trial(self.context, trial, role=role, number=110, good=liked, at=self.clock())
        self.clock.move(hours=1)

    def entries(self) -> list[str]:
        """The actions in the log."""
        with self.context.database.read() as session:
            rows = session.exec(select(AuditEntry).order_by(AuditEntry.sequence))  # type: ignore[arg-type]
            assert audit.verify(session, key=self.context.keyring.derive(AUDIT_PURPOSE)) is None
            return [row.action for row in rows]

    def scorer(self) -> str:
        """The latest scorer's version."""
        with self.context.database.read() as session:
            return scorers.list_scorers(session, workload="default")[0].version

    def execute(self, statement: str) -> None:
        """Do something to the database behind the product's back."""
        with self.context.database.write() as session:
            session.connection().execute(text(statement))

    def everything(self) -> dict[str, list[Any]]:
        """All rows that acts change."""
        with self.context.database.read() as session:
            return {
                table.name: list(session.connection().execute(table.select()))
                for table in SQLModel.metadata.sorted_tables
                if table.name not in UNAUDITED
            }


Step = Callable[[World], object]


@dataclass(frozen=True)
class Case:
    """An act: what comes before it, what it is, and what it leaves in the log."""

    act: Step
    leaves: list[str]
    before: Step = lambda _world: None
    commands: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    deployments: tuple[str, ...] = ()


def cli(*arguments: str) -> Step:
    return lambda world: world.cli(*arguments)


def in_registry(change: Callable[..., object]) -> Step:
    """An act that the routes make, in one transaction: (session, act, the trial's id)."""

    def act(world: World) -> None:
        with world.context.database.write() as session:
            running = experiments.running(session, workload="default")
            change(session, world.context.act("test", "why"), running and running.id)

    return act


half = in_registry(
    lambda session, act, trial: experiments.ramp(session, act, experiment_id=trial, share=0.5)
)
promoted = in_registry(
    lambda session, act, trial: experiments.promote(session, act, experiment_id=trial)
)


def revoke_key(world: World) -> None:
    with world.context.database.read() as session:
        prefix = keys.list_keys(session)[0].prefix
    world.cli("key", "revoke", prefix)


def import_file(world: World) -> None:
    path = world.context.settings.home / "log.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "a"}, '
                    '{"role": "assistant", "content": "b"}]}\n')  # fmt: skip
    world.cli("import", str(path))


def die(world: World) -> None:
    with world.context.database.write() as session:
        runs.start(session, run_id="dead", workload="default", trigger="x", now=world.clock())
    world.clock.move(hours=5)


def fail(world: World) -> None:
    with suppress(StopIteration):
        run_retrain(world.context, FakeLearner([]), workload="default")


def start_flow(world: World) -> None:
    """Ask the endpoint for a training; there is no Prefect server, so that nothing more happens."""
    from serving.api.service import make_service
    from tests.serving.router import LocalModels

    async def ask() -> None:
        made = make_service(
            world.context.settings,
            lambda _state: LocalModels(worker=None),
            replica_id="r",  # type: ignore[arg-type]
        )
        transport = httpx.ASGITransport(serving_app.create_api(made), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            await client.post("/api/admin/train-model")
        made.database.close()

    asyncio.run(ask())


LIKED: Step = lambda world: log_liked(world.context, 30, at=world.clock())  # noqa: E731
RATED: Step = lambda world: log_use(world.context, 400, until=world.clock())  # noqa: E731
TRAINED = ["start_training", "curate", "build_dataset"]

CASES: dict[str, Case] = {
    "add a workload": Case(
        cli("workload", "add", "support"), ["add_workload"], commands=("workload add",)
    ),
    "make a key": Case(cli("key", "create", "bot"), ["create_key"], commands=("key create",)),
    "revoke a key": Case(
        revoke_key, ["revoke_key"], before=cli("key", "create", "bot"), commands=("key revoke",)
    ),
    "make a token": Case(cli("token", "alice"), ["create_token"], commands=("token",)),
    "import": Case(import_file, ["import", "end_import"], commands=("import",)),
    "export": Case(
        cli("export", "interactions", "--out", "exported"),
        ["export"],
        before=LIKED,
        commands=("export",),
    ),
    "back up": Case(cli("backup", "backed-up"), ["backup"], commands=("backup create",)),
    "set a user's consent": Case(
        cli("consent", "alice", "opt_out"), ["set_consent"], commands=("consent",)
    ),
    "export a user": Case(cli("export-user", "alice"), ["export_user"], commands=("export-user",)),
    "erase a user": Case(
        cli("erase-user", "alice", "--approved-by", "boss"),
        ["erase_user", "user_erased"],
        before=cli("consent", "alice", "opt_out"),
        commands=("erase-user",),
    ),
    "rotate keys": Case(
        cli("keys", "rotate"), ["make_key", "rotate_keys"], commands=("keys rotate",)
    ),
    "delete what is old": Case(
        lambda world: run_retention(world.context, steps=PlainSteps()),
        ["expire", "expire"],  # answers, and people of whom nothing is left
        before=lambda world: (LIKED(world), world.clock.move(hours=24 * 400)),
        commands=("retention",),
        deployments=("retention/daily",),
    ),
    "fit a scorer": Case(
        cli("scorer", "fit"),
        ["fit_scorer", "activate_scorer"],
        before=RATED,
        commands=("scorer fit",),
    ),
    "activate a scorer": Case(
        lambda world: world.cli("scorer", "activate", world.scorer()),
        ["activate_scorer"],
        before=lambda world: (RATED(world), world.cli("scorer", "fit")),
        commands=("scorer activate",),
    ),
    "turn the scorer off": Case(
        cli("scorer", "off"),
        ["deactivate_scorer"],
        before=lambda world: (RATED(world), world.cli("scorer", "fit")),
        commands=("scorer off",),
    ),
    "curate": Case(
        cli("curate"),
        ["curate"],
        before=LIKED,
        commands=("curate",),
        deployments=("curate/daily",),
    ),
    "fire a trigger": Case(
        lambda world: check(world.context, workload="default", force=True, steps=PlainSteps()),
        ["fire_trigger"],
        commands=("triggers",),
        deployments=("check-triggers/hourly",),
    ),
    "train, pass the gate, try out": Case(
        World.retrain,
        [*TRAINED, "start_experiment", "register_version", "end_training"],
        before=LIKED,
        commands=("retrain",),
        deployments=("retrain/weekly", "evaluate/monthly"),
    ),
    "train, fail the gate": Case(
        lambda world: world.retrain(0.1),
        [*TRAINED, "register_version", "end_training"],
        before=LIKED,
    ),
    "refuse to train": Case(World.retrain, ["start_training", "build_dataset", "end_training"]),
    "training that fails": Case(fail, [*TRAINED, "end_training"], before=LIKED),
    "training whose process dies": Case(
        lambda world: check(world.context, workload="default", steps=PlainSteps()),
        ["end_training"],
        before=die,
    ),
    "put several on trial": Case(
        cli("experiment", "start", "v1", "v2"),
        ["start_experiment"],
        before=lambda world: world.registered(2),
        commands=("experiment start",),
    ),
    "drop one of several": Case(
        cli("experiment", "drop", "v2"),
        ["drop_challenger"],
        before=lambda world: world.cli("experiment", "start", *world.registered(3)),
        commands=("experiment drop",),
    ),
    "try the champion against itself": Case(
        cli("experiment", "aa"),
        ["start_experiment"],
        before=lambda world: (world.registered(1), world.cli("promote", "v1")),
        commands=("experiment aa",),
    ),
    "decide to promote": Case(
        lambda world: look(world.context, "default"),
        ["promote"],
        before=lambda world: world.judge(good=True),
        commands=("experiment",),
        deployments=("experiment/quarter-hourly",),
    ),
    "decide to roll back": Case(
        lambda world: look(world.context, "default"),
        ["roll_back"],
        before=lambda world: world.judge(good=False),
    ),
    "promote": Case(
        cli("promote"),
        ["promote"],
        before=World.try_out,
        commands=("promote",),
        routes=("POST /api/admin/versions/{version:path}/promote",),
    ),
    "end a trial": Case(
        cli("rollback"),
        ["roll_back"],
        before=World.try_out,
        commands=("rollback",),
        routes=("POST /api/admin/rollback",),
    ),
    "roll the champion back": Case(
        cli("rollback"), ["roll_back"], before=lambda world: (world.try_out(), world.cli("promote"))
    ),
    "set the share": Case(
        half,
        ["set_share"],
        before=World.try_out,
        routes=("PUT /api/admin/experiment/share",),
    ),
    "pause": Case(
        in_registry(
            lambda session, act, trial: experiments.pause(session, act, experiment_id=trial)
        ),
        ["pause_experiment"],
        before=World.try_out,
        routes=("POST /api/admin/experiment/pause",),
    ),
    "resume": Case(
        in_registry(
            lambda session, act, trial: experiments.resume(session, act, experiment_id=trial)
        ),
        ["resume_experiment"],
        before=lambda world: (
            world.try_out(),
            in_registry(
                lambda session, act, trial: experiments.pause(session, act, experiment_id=trial)
            )(world),
        ),
        routes=("POST /api/admin/experiment/resume",),
    ),
    "pause by command": Case(
        cli("experiment", "pause"),
        ["pause_experiment"],
        before=World.try_out,
        commands=("experiment pause",),
    ),
    "resume by command": Case(
        cli("experiment", "resume"),
        ["resume_experiment"],
        before=lambda world: (world.try_out(), world.cli("experiment", "pause")),
        commands=("experiment resume",),
    ),
    "freeze": Case(
        cli("experiment", "freeze"),
        ["freeze_experiment"],
        before=World.try_out,
        commands=("experiment freeze",),
        routes=("POST /api/admin/experiment/freeze",),
    ),
    "let the numbers decide again": Case(
        cli("experiment", "unfreeze"),
        ["unfreeze_experiment"],
        before=lambda world: (world.try_out(), world.cli("experiment", "freeze")),
        commands=("experiment unfreeze",),
        routes=("POST /api/admin/experiment/unfreeze",),
    ),
    "confirm a promotion": Case(
        lambda world: look(world.context, "default"),
        ["confirm_promotion"],
        before=lambda world: (
            world.try_out(),
            promoted(world),
            world.clock.move(hours=24 * 30),
        ),
    ),
    "retire a challenger": Case(
        in_registry(
            lambda session, act, trial: experiments.stop(
                session, act, experiment_id=trial, status=versions.Status.RETIRED
            )
        ),
        ["retire_challenger"],
        before=World.try_out,
    ),
    "start a flow over the API": Case(
        start_flow,
        ["start_flow"],
        routes=("POST /api/admin/train-model", "POST /api/admin/curate-training-data"),
    ),
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
