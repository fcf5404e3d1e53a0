"""Whole trials on a real router: several challengers at once, and a champion against itself."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlmodel import select

from flows import rollout
from flows.context import Context, open_context
from flows.decisions.experiment import Action
from flows.experiment import look
from registry import arms, deployment, experiments, itself
from registry.models import UserInteraction
from registry.settings_decisions import ExperimentSettings
from registry.versions import Status
from tests.serving.conftest import Installation
from tests.serving.router import Router, running_router

QUICK = ExperimentSettings(
    shares=(0.75,), min_hours=0, settle_hours=0, min_rated=20, guardrail_min_rated=20
)


@contextmanager
def flows_of(installation: Installation) -> Iterator[Context]:
    context = open_context(installation.settings)
    yield context
    context.database.close()


async def ask_and_rate(router: Router, users: range, liked: dict[str | None, float]) -> None:
    """Each asks once, and likes what a version answers as often as `liked` says."""
    draw = random.Random(users.start)
    for user in users:
        answer = (await router.generate(user_id=f"u{user}", max_tokens=1)).json()
        score = 5 if draw.random() < liked.get(answer["model_version"], 0.5) else 1
        body = {"interaction_id": answer["interaction_id"], "score": score}
        assert (await router.client.post("/api/feedback", json=body)).status_code == 200


def answered_by(installation: Installation, experiment_id: str) -> dict[str | None, set[str]]:
    """The people that each version of the trial has answered."""
    found: dict[str | None, set[str]] = {}
    with installation.database.read() as session:
        for row in session.exec(
            select(UserInteraction).where(UserInteraction.experiment_id == experiment_id)
        ):
            found.setdefault(row.model_version, set()).add(row.user_id or "")
    return found


async def test_of_three_challengers_one_leaves_and_the_one_that_pleases_wins(
    installation: Installation, adapters: dict[str, Path]
) -> None:
    champion = installation.register(adapters["one"])
    installation.deploy(champion)
    names = [installation.register(adapters[which]) for which in ("two", "one", "two")]
    async with running_router(installation.settings) as router:
        with flows_of(installation) as context:
            with context.database.write() as session:
                trial = rollout.begin(
                    session,
                    context.act("test", "try them"),
                    workload="default",
                    version=names[0],
                    rivals=names[1:],
                    settings=QUICK,
                )
            await router.follow()
            await ask_and_rate(router, range(40), {})
            before = answered_by(installation, trial.id)
            assert set(before) == {champion, *names}
            with context.database.write() as session:
                experiments.drop(
                    session,
                    context.act("test", "enough of it"),
                    experiment_id=trial.id,
                    version=names[0],
                    status=Status.RETIRED,
                )
            await router.follow()
            await ask_and_rate(
                router, range(40, 220), {champion: 0.2, names[1]: 1.0, names[2]: 0.2}
            )
            after = answered_by(installation, trial.id)
            assert after[names[0]] == before[names[0]]
            decision = look(context, "default")
            with context.database.read() as session:
                state = deployment.desired(session)
                ends = {row.version: row.status for row in arms.of(session, trial.id)}
    assert decision.action is Action.PROMOTE, decision.reasons
    assert state.champion is not None
    assert state.champion.version == names[1]
    assert ends == {names[0]: "retired", names[1]: "promoted", names[2]: "retired"}


@pytest.mark.slow
async def test_a_champion_against_itself_is_found_no_different(
    installation: Installation,
    adapters: dict[str, Path],
    record_property: Callable[[str, object], None],
) -> None:
    """From router to rule: whatever is found is a false alarm."""
    num_trials, people, alarms = 10, 100, []
    installation.deploy(installation.register(adapters["one"]))
    settings = QUICK.model_copy(update={"shares": (0.5,)})
    async with running_router(installation.settings) as router:
        with flows_of(installation) as context:
            for number in range(num_trials):
                with context.database.write() as session:
                    act = context.act("test", "see that nothing is found")
                    trial = itself.begin(session, act, workload="default", settings=settings)
                await router.follow()
                for start in range(0, people, 20):
                    first = 1000 * number + start
                    await ask_and_rate(router, range(first, first + 20), {})
                    decision = look(context, "default")
                    if decision.action not in (Action.WAIT, Action.RAMP):
                        alarms.append(decision.reasons)
                        break
                else:
                    installation.retire(trial.id)
                assert len(answered_by(installation, trial.id)) == 2
    rate = len(alarms) / num_trials
    record_property("false_alarm_rate", rate)
    sys.stdout.write(f"{len(alarms)} of {num_trials} trials ended with a false alarm\n")
    assert rate <= 0.1, f"{rate:.0%} of the trials ended with a false alarm: {alarms}"
