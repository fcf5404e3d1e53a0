"""Several challengers: each judged by its part of the error rate, and one winner at most."""

from __future__ import annotations

from datetime import timedelta

import pytest

from flows.decisions.experiment import Action, ExperimentDecision, ExperimentFacts
from flows.decisions.experiment_facts import facts_from
from flows.decisions.several import Judged, for_each, judge, share_for_all, together
from tests.support.experiments import SETTINGS, START, people, seen


def facts(good: float, *, errors: float = 0, seed: int = 1, of: int = 3) -> ExperimentFacts:
    """A challenger that pleases so many, against a champion that pleases half."""
    return facts_from(
        seen(people(0, 900, good=0.5, seed=seed), people(1, 300, good=good, errors=errors)),
        settings=for_each(SETTINGS.model_copy(update={"split_alpha": 1e-300}), of),
        now=START + timedelta(hours=50),
    )


def test_of_two_that_are_better_the_surest_wins_and_all_others_go() -> None:
    found = judge({"a": facts(0.8), "b": facts(0.95), "c": facts(0.5)}, SETTINGS)
    assert {name: one.decision.action for name, one in found.items()} == {
        "a": Action.RETIRE,
        "b": Action.PROMOTE,
        "c": Action.RETIRE,
    }
    assert found["a"].decision.reasons == ("'b' has won",)
    assert together(found).action is Action.PROMOTE


def test_one_that_does_harm_is_rolled_back_and_the_others_are_judged_alone() -> None:
    found = judge({"a": facts(0.5, errors=0.4), "b": facts(0.5)}, SETTINGS)
    assert found["a"].decision.action is Action.ROLL_BACK
    assert found["b"].decision.action in (Action.WAIT, Action.RAMP)
    assert together(found).reasons[0].startswith("'a', roll back: errors")


def test_the_more_there_are_the_surer_each_must_be() -> None:
    bounds = [facts(0.7, of=num).interval for num in (1, 3)]
    assert all(bounds)
    alone, of_three = (bound.lower for bound in bounds if bound is not None)
    assert of_three < alone
    assert for_each(SETTINGS, 4).alpha == pytest.approx(SETTINGS.alpha / 4)


def test_while_one_must_wait_none_gets_more_people() -> None:
    def decided(action: Action, share: float | None) -> ExperimentDecision:
        return ExperimentDecision(action, (action.value,), share, {})

    ramp, wait = decided(Action.RAMP, 0.25), decided(Action.WAIT, None)
    assert share_for_all([ramp, decided(Action.RAMP, 0.5)]) == 0.25
    assert share_for_all([ramp, wait]) is None
    assert share_for_all([]) is None
    ahead = facts(0.5)
    both = {"a": Judged(ahead, ramp), "b": Judged(ahead, wait)}
    assert together(both).action is Action.WAIT


def test_of_one_alone_the_decision_is_its_own() -> None:
    found = judge({None: facts(0.95, of=1)}, SETTINGS)
    assert together(found) == found[None].decision
