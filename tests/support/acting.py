"""An installation in which people and flows act, and the log of what they did."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx
from sqlalchemy import text
from sqlmodel import SQLModel, select
from typer.testing import CliRunner

from flows.cli import app
from flows.context import Context
from flows.retrain import run_retrain
from registry import audit, by_hand, experiments, keys, runs, scorers, versions
from registry.deployment import AUDIT_PURPOSE
from registry.models import AuditEntry
from serving.api import app as serving_app
from tests.flows.conftest import FakeClock
from tests.support.fake_learner import FakeLearner
from tests.support.opinions import log_use
from tests.support.usage import log_liked, log_trial

# Tables that no act changes, or that measure only.
UNAUDITED = {"audit_log", "audit_head", "replica_status", "trigger_checks", "trial_rows"}


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
