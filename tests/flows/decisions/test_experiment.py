"""48 hours of experiment, in a millisecond each."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from flows.decisions.experiment import Action, ExperimentDecision, decide, facts_from
from registry.experiments import Observation
from registry.settings import ExperimentSettings

START = datetime(2026, 1, 17, tzinfo=UTC)
SETTINGS = ExperimentSettings()


def observe(
    role: str,
    num: int,
    *,
    good: float,
    seed: int = 0,
    latency_ms: float = 100,
    errors: float = 0,
    rated: bool = True,
) -> list[Observation]:
    rng = np.random.default_rng([seed, len(role)])
    return [
        Observation(
            role=role,
            user_id=f"{role}-{i}",
            quality=0.9 if liked else 0.7,
            thumb=(1 if liked else -1) if rated else None,
            latency_ms=latency_ms * float(rng.uniform(0.8, 1.2)),
            failed=bool(rng.random() < errors),
            created_at=START + timedelta(minutes=i),
        )
        for i, liked in enumerate(rng.random(num) < good)
    ]


def look(
    *arms: list[Observation],
    hours: float = 49,
    share: float = 0.1,
    settings: ExperimentSettings = SETTINGS,
) -> ExperimentDecision:
    facts = facts_from(
        [item for arm in arms for item in arm],
        started_at=START,
        share=share,
        settings=settings,
        now=START + timedelta(hours=hours),
    )
    return decide(facts, settings)


CHAMPION = observe("champion", 900, good=0.4)
BETTER = observe("challenger", 150, good=0.8)


def test_a_clearly_better_challenger_is_promoted() -> None:
    decision = look(CHAMPION, BETTER)
    assert decision.action is Action.PROMOTE
    assert "overall score" in decision.reasons[1]
    assert decision.numbers["challenger_rated"] == 150


def test_before_48_hours_it_is_not() -> None:
    decision = look(CHAMPION, BETTER, hours=47.9, share=0.5)
    assert decision.action is Action.WAIT
    assert decision.reasons == ("47.9 of 48 h have passed",)


def test_below_100_rated_answers_it_is_not() -> None:
    decision = look(CHAMPION, BETTER[:99], share=0.5)
    assert decision.action is Action.WAIT
    assert decision.reasons == ("challenger has 99 of 100 rated answers",)


def test_unrated_answers_do_not_count() -> None:
    silent = observe("challenger", 500, good=0.8, rated=False)
    assert look(CHAMPION, BETTER[:50], silent, share=0.5).action is Action.WAIT


def test_an_equal_challenger_is_neither_promoted_nor_retired() -> None:
    decision = look(CHAMPION, observe("challenger", 150, good=0.4, seed=3), share=0.5)
    assert decision.action is Action.WAIT


def test_an_equal_challenger_is_retired_at_the_end_of_its_time() -> None:
    decision = look(CHAMPION, observe("challenger", 150, good=0.4, seed=3), hours=336)
    assert decision.action is Action.RETIRE
    assert decision.reasons[0] == "no decision within 336 h"


def test_a_worse_challenger_goes() -> None:
    decision = look(CHAMPION, observe("challenger", 150, good=0.1))
    assert decision.action in (Action.RETIRE, Action.ROLL_BACK)


def test_a_slow_challenger_is_rolled_back_at_once() -> None:
    slow = observe("challenger", 40, good=0.9, latency_ms=200)
    decision = look(CHAMPION, slow, hours=1)
    assert decision.action is Action.ROLL_BACK
    assert decision.reasons[0].startswith("latency:")


def test_a_failing_challenger_is_rolled_back_at_once() -> None:
    decision = look(CHAMPION, observe("challenger", 60, good=0.9, errors=0.3), hours=1)
    assert decision.action is Action.ROLL_BACK
    assert decision.reasons[0].startswith("error:")


def test_an_improvement_below_the_floor_waits() -> None:
    picky = ExperimentSettings(min_improvement=5.0)
    decision = look(CHAMPION, BETTER, share=0.5, settings=picky)
    assert decision.action is Action.WAIT
    assert any("500% needed" in reason for reason in decision.reasons)


@pytest.mark.parametrize(("share", "num", "expected"), [(0.1, 30, 0.25), (0.25, 60, 0.5)])
def test_a_challenger_that_does_well_gets_more_traffic(
    share: float, num: int, expected: float
) -> None:
    decision = look(CHAMPION, BETTER[:num], hours=5, share=share)
    assert decision.action is Action.RAMP
    assert decision.share == expected


def test_a_challenger_that_is_behind_gets_no_more_traffic() -> None:
    behind = observe("challenger", 40, good=0.3, seed=1)
    assert look(CHAMPION, behind, hours=5).action is Action.WAIT


def test_nothing_was_answered_yet() -> None:
    decision = look(hours=0)
    assert decision.action is Action.WAIT
    assert decision.numbers["difference"] is None


def test_the_same_answers_give_the_same_decision() -> None:
    assert look(CHAMPION, BETTER) == look(CHAMPION, BETTER)


def test_a_load_that_grows_for_both_arms_is_not_held_against_the_challenger() -> None:
    def slower_by_the_hour(items: list[Observation]) -> list[Observation]:
        return [
            replace(item, latency_ms=(item.latency_ms or 0) * (1 + index / 50))
            for index, item in enumerate(items)
        ]

    both = [observe(role, 300, good=0.5) for role in ("champion", "challenger")]
    decision = look(*(slower_by_the_hour(arm) for arm in both), hours=1)
    assert decision.action is not Action.ROLL_BACK
