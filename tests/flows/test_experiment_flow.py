"""Looks at a running experiment, on a clock that the test moves."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from flows.context import Context
from flows.decisions.experiment import Action
from flows.experiment import look, look_at_each, run_experiment
from flows.steps import PlainSteps
from registry import audit, deployment, experiments, versions
from registry.models import Experiment
from tests.flows.conftest import FakeClock
from tests.support.usage import log_trial
from tests.support.versions import register_version

pytestmark = pytest.mark.both_databases

Start = Callable[..., Experiment]


@pytest.fixture
def start(context: Context) -> Start:
    """Puts a challenger on trial against the base model."""

    def begin(*, workload: str = "default", **changes: object) -> Experiment:
        with context.database.write() as session:
            row = versions.register(
                session,
                version="v1",
                workload=workload,
                base_model="base",
                adapter_digest="d" * 64,
                recipe="r",
                now=context.clock(),
            )
            return experiments.start(
                session,
                context.act("test", "try it"),
                workload=workload,
                challenger=row.version,
                share=0.1,
                settings=context.settings.experiment.model_copy(
                    update={"settle_hours": 0, "split_alpha": 1e-300, **changes}
                ).model_dump(mode="json"),
            )

    return begin


def log_arms(context: Context, experiment: Experiment, *, challenger_good: bool) -> None:
    at, workload = context.clock(), experiment.workload
    log_trial(
        context,
        experiment.id,
        role="default",
        number=300,
        good=not challenger_good,
        at=at,
        workload=workload,
    )
    log_trial(
        context,
        experiment.id,
        role="challenger",
        number=150,
        good=challenger_good,
        at=at,
        version="v1",
        workload=workload,
    )


def test_without_an_experiment_there_is_nothing_to_do(context: Context) -> None:
    decision = look(context, "default")
    assert (decision.action, decision.reasons) == (Action.WAIT, ("no experiment is running",))


def test_a_better_challenger_is_promoted_after_its_time_and_not_before(
    context: Context, clock: FakeClock, start: Start
) -> None:
    experiment = start()
    log_arms(context, experiment, challenger_good=True)
    clock.move(hours=1)
    assert look(context, "default").action is Action.RAMP
    clock.move(hours=47.5)
    assert look(context, "default").action is Action.PROMOTE
    with context.database.read() as session:
        desired = deployment.desired(session)
        last = experiments.last_decisions(session, workload="default")
        assert audit.verify(session, key=context.keyring.derive("audit")) is None
    assert desired.champion is not None
    assert (desired.champion.version, desired.challenger) == ("v1", None)
    assert [row.action for row in last] == ["promote", "ramp"]
    assert any("overall score" in reason for reason in last[0].reasons["reasons"])


def test_a_challenger_that_displeases_is_rolled_back(
    context: Context, clock: FakeClock, start: Start
) -> None:
    log_arms(context, start(), challenger_good=False)
    clock.move(hours=1)
    assert look(context, "default").action is Action.ROLL_BACK
    with context.database.read() as session:
        assert deployment.desired(session).live == ()
        assert versions.get(session, "v1").deployment_status == "rolled_back"


def test_an_undecided_trial_ends_at_its_longest_duration(
    context: Context, clock: FakeClock, start: Start
) -> None:
    start()
    clock.move(hours=335)
    assert look(context, "default").action is Action.WAIT
    clock.move(hours=1)
    assert look(context, "default").action is Action.RETIRE


def test_an_experiment_keeps_the_settings_it_was_started_with(
    context: Context, clock: FakeClock, start: Start
) -> None:
    log_arms(context, start(), challenger_good=True)
    clock.move(hours=30)
    shorter = context.settings.experiment.model_copy(update={"min_hours": 1})
    object.__setattr__(
        context, "settings", context.settings.model_copy(update={"experiment": shorter})
    )
    assert look(context, "default").action is not Action.PROMOTE


def test_of_two_looks_at_once_one_acts(context: Context, clock: FakeClock, start: Start) -> None:
    log_arms(context, start(), challenger_good=True)
    clock.move(hours=50)
    actions: list[Action] = []
    threads = [
        threading.Thread(target=lambda: actions.append(look(context, "default").action))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(actions) == [Action.PROMOTE, Action.WAIT]
    with context.database.read() as session:
        last = experiments.last_decisions(session, workload="default")
    assert [row.action for row in last] == ["promote"]


def test_the_course_of_the_comparison_is_shown_as_a_plot(
    context: Context, clock: FakeClock, start: Start
) -> None:
    shown: dict[str, str] = {}

    class Recorder(PlainSteps):
        def image(self, key: str, data_uri: str, description: str) -> None:
            shown[key] = data_uri
            assert description

    log_arms(context, start(), challenger_good=True)
    for _ in range(2):
        clock.move(hours=1)
        run_experiment(context, workload="default", steps=Recorder())
    assert shown["experiment"].startswith("data:image/png;base64,")


def test_a_paused_trial_is_left_alone(context: Context, start: Start) -> None:
    experiment = start()
    log_arms(context, experiment, challenger_good=False)
    with context.database.write() as session:
        experiments.pause(session, context.act("test", "wait"), experiment_id=experiment.id)
    assert look(context, "default").reasons == ("the experiment is paused",)
    with context.database.write() as session:
        experiments.resume(session, context.act("test", "go on"), experiment_id=experiment.id)
        assert deployment.desired(session, "default").share == 0.1
    assert look(context, "default").reasons != ("the experiment is paused",)


@pytest.fixture
def shown(context: Context) -> dict[str, list[str]]:
    """What looks at each of three workloads have shown: the tables of each."""
    with context.database.write() as session:
        for name in ("mail", "support"):
            deployment.add_workload(session, name, now=context.clock())
    return {}


def look_on_schedule(context: Context, shown: dict[str, list[str]]) -> str:
    class Recorder(PlainSteps):
        def __init__(self, workload: str) -> None:
            self._tables = shown.setdefault(workload, [])

        def table(self, key: str, markdown: str) -> None:
            assert markdown
            self._tables.append(key)

    return look_at_each(context, None, steps_for=Recorder).message


def test_a_guardrail_rolls_back_the_challenger_of_an_added_workload(
    context: Context, clock: FakeClock, start: Start, shown: dict[str, list[str]]
) -> None:
    log_arms(context, start(workload="support"), challenger_good=False)
    clock.move(hours=1)
    message = look_on_schedule(context, shown)
    default, mail, support = message.splitlines()
    assert default == "default: wait: no experiment is running"
    assert mail == "mail: nothing is on trial, and nothing waits"
    assert support.startswith("support: roll_back: ")
    with context.database.read() as session:
        assert deployment.desired(session, "support").live == ()
        assert versions.get(session, "v1").deployment_status == "rolled_back"
    assert shown["support"] == ["experiment", "experiment-page"]


def test_an_added_workload_without_a_trial_leaves_nothing_to_read(
    context: Context, shown: dict[str, list[str]]
) -> None:
    assert look_on_schedule(context, shown).splitlines() == [
        "default: wait: no experiment is running",
        "mail: nothing is on trial, and nothing waits",
        "support: nothing is on trial, and nothing waits",
    ]
    assert shown == {"default": ["experiment"]}


def test_a_version_of_an_added_workload_that_waits_is_put_on_trial(
    context: Context, shown: dict[str, list[str]]
) -> None:
    register_version(context, "v2", workload="mail")
    assert "mail: start: 'v2'" in look_on_schedule(context, shown)
    with context.database.read() as session:
        assert experiments.running(session, workload="mail") is not None
