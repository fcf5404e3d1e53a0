"""One turn of the loop: use → curate → trigger → train → trial → decision, on real parts."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.console import Console

from flows.check_triggers import run_check_triggers
from flows.context import Context
from flows.curate import run_curate
from flows.decisions.experiment import Action
from flows.demo.clock import SimulatedClock
from flows.demo.people import Answer, People, examine
from flows.demo.progress import Phases, RichSteps, counting
from flows.demo.results import Round, score
from flows.experiment import look
from flows.learner import Learner
from flows.registration import RetrainResult
from flows.retrain import run_retrain
from flows.signals import run_scoring
from registry import deployment
from registry.clock import utc_now
from registry.models import DEFAULT_WORKLOAD, Dataset
from registry.versions import Status
from training.base_model.requests import Request

HOURS_PER_VISIT = 12.0
"""Simulated time between two looks at an experiment."""
OBSERVED_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Plan:
    """How much the people of a demo do."""

    num_rounds: int = 3
    requests_before_training: int = 240
    requests_per_visit: int = 100
    num_held_out: int = 120
    correction_rate: float = 0.15


@dataclass(frozen=True)
class Loop:
    """Everything that a round works with."""

    context: Context
    learner: Learner
    clock: SimulatedClock
    people: People
    url: str
    held_out: Sequence[Request]
    plan: Plan
    console: Console
    phases: Phases

    def examine(self, version: str | None, title: str) -> list[Answer]:
        """One version's answers to the held-out requests."""
        with self.phases.phase("examine"), counting(self.console, title, len(self.held_out)) as n:
            return examine(self.url, self.held_out, version=version, on_answer=n)

    def use(self, num_requests: int, title: str) -> list[Answer]:
        """People ask and rate."""
        with self.phases.phase("use"), counting(self.console, title, num_requests) as n:
            return self.people.use(num_requests, on_answer=n)


def run_round(loop: Loop, number: int) -> Round:
    """Let people use what serves now, learn from what they said, and try what was learned."""
    loop.console.rule(f"Round {number}", align="left")
    loop.use(loop.plan.requests_before_training, "people ask and rate")
    loop.clock.advance(hours=loop.context.settings.triggers.cooldown_hours)
    steps = RichSteps(loop.console)
    result, reason = _train_on_trigger(loop, steps)
    turn = Round(
        number=number,
        version=None if result is None else result.version,
        score=None,
        decision="not trained",
        reason=reason if result is None else result.reason,
        num_samples=_num_samples(loop, result),
        losses=tuple(steps.losses),
    )
    if result is None or result.version is None:
        return turn
    if result.standing != Status.CHALLENGER:
        return replace(turn, decision=result.standing or result.status)
    _wait(loop)
    turn = replace(turn, score=score(loop.examine(result.version, "held-out requests")))
    return _try(loop, turn)


def _train_on_trigger(loop: Loop, steps: RichSteps) -> tuple[RetrainResult | None, str]:
    """Curate, look at the triggers, and train when one fires."""
    results: list[RetrainResult] = []

    def start(trigger: str) -> None:
        with loop.phases.phase("train"):
            results.append(
                run_retrain(
                    loop.context,
                    loop.learner,
                    workload=DEFAULT_WORKLOAD,
                    trigger=trigger,
                    steps=steps,
                )
            )

    report = run_curate(loop.context, workload=DEFAULT_WORKLOAD, steps=steps)
    loop.console.print(f"  curated: {report.num_added} new samples {report.by_tool}")
    scoring, _ = run_scoring(loop.context, workload=DEFAULT_WORKLOAD, steps=steps)
    loop.console.print(f"  scorer: {scoring.reason}")
    decision = run_check_triggers(loop.context, start, workload=DEFAULT_WORKLOAD, steps=steps)
    loop.console.print(f"  trigger: {decision.trigger or 'none'} ({decision.reason})")
    if not results:
        return None, decision.reason
    loop.console.print(f"  trained: {results[0].version}, {results[0].reason}")
    return results[0], decision.reason


def _try(loop: Loop, turn: Round) -> Round:
    """Traffic and looks until the experiment decides."""
    looks: list[tuple[float, float, float, float]] = []
    shares: list[tuple[float, float]] = []
    hours = 0.0
    while True:
        loop.use(loop.plan.requests_per_visit, f"trial, {hours:.0f} h on")
        loop.clock.advance(hours=HOURS_PER_VISIT)
        hours += HOURS_PER_VISIT
        decision = look(loop.context, DEFAULT_WORKLOAD)
        numbers = {name: value for name, value in decision.numbers.items() if value is not None}
        if "difference" in numbers:
            looks.append((hours, numbers["difference"], numbers["lower"], numbers["upper"]))
        shares.append((hours, numbers["share"]))
        if decision.action is not Action.WAIT:
            loop.console.print(f"  {decision.action}: {'; '.join(decision.reasons)}")
            _wait(loop)
        if decision.action not in (Action.WAIT, Action.RAMP):
            return replace(
                turn,
                decision=decision.action.value,
                reason="; ".join(decision.reasons),
                looks=tuple(looks),
                shares=tuple(shares),
            )


def _wait(loop: Loop) -> None:
    """Wait until every router and replica follows the desired state."""
    deadline = time.monotonic() + OBSERVED_TIMEOUT_S
    while time.monotonic() < deadline:
        with loop.context.database.read() as session:
            wanted = deployment.desired(session, DEFAULT_WORKLOAD).generation
            if deployment.is_observed(
                session, workload=DEFAULT_WORKLOAD, generation=wanted, now=utc_now()
            ):
                return
        time.sleep(0.1)
    raise TimeoutError(f"no replica set followed generation {wanted} in {OBSERVED_TIMEOUT_S:g} s")


def _num_samples(loop: Loop, result: RetrainResult | None) -> int:
    if result is None or result.dataset_id is None:
        return 0
    with loop.context.database.read() as session:
        dataset = session.get(Dataset, result.dataset_id)
    return 0 if dataset is None else dataset.num_train + dataset.num_validation
