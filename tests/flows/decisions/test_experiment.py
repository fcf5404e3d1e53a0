"""48 hours of experiment, in a millisecond each."""

from dataclasses import replace

import pytest

from flows.decisions.experiment import Action
from registry.settings_decisions import ExperimentSettings, Step
from tests.support.experiments import Arm, look, people

CHAMPION = people(0, 900, good=0.4)
BETTER = people(1, 150, good=0.8)
PLAIN = ExperimentSettings(split_alpha=1e-300)
"""Splits of these tests are as they come."""


def test_a_clearly_better_challenger_is_promoted() -> None:
    decision = look(CHAMPION, BETTER, settings=PLAIN)
    assert decision.action is Action.PROMOTE
    assert "overall score" in decision.reasons[1]
    assert decision.numbers["challenger_rated"] == 150


def test_before_48_hours_it_is_not() -> None:
    decision = look(CHAMPION, BETTER, hours=47.9, share=0.5, settings=PLAIN)
    assert decision.action is Action.WAIT
    assert decision.reasons == ("47.9 of 48 h have passed",)


def test_below_100_rated_answers_it_is_not() -> None:
    decision = look(CHAMPION, people(1, 99, good=0.8), share=0.5, settings=PLAIN)
    assert decision.action is Action.WAIT
    assert decision.reasons == ("challenger has 99 of 100 rated answers",)


def test_a_hundred_ratings_of_a_handful_of_people_are_too_few_people() -> None:
    few = [replace(user, unit=f"1-{index % 8}") for index, user in enumerate(BETTER.users)]
    merged: dict[str, list[float]] = {}
    for user in few:
        own = merged.setdefault(user.unit, [0] * 7)
        values = (user.scored, user.quality, user.rated, user.positive, user.negative)
        for place, value in enumerate((*values, user.rated_scored, user.rated_quality)):
            own[place] += value
    users = [replace(few[0], unit=unit) for unit in merged]
    users = [
        replace(
            user,
            scored=int(own[0]),
            quality=own[1],
            rated=int(own[2]),
            positive=int(own[3]),
            negative=int(own[4]),
            rated_scored=int(own[5]),
            rated_quality=own[6],
        )
        for user, own in zip(users, merged.values(), strict=True)
    ]
    decision = look(CHAMPION, Arm(users, BETTER.answers), share=0.5, settings=PLAIN)
    assert decision.action is Action.WAIT
    assert decision.reasons == ("challenger's ratings are worth those of 8 people (15 needed)",)


def test_unrated_answers_do_not_count_as_rated() -> None:
    silent = people(1, 500, good=0.8, rated=False)
    assert look(CHAMPION, silent, share=0.5, settings=PLAIN).action is Action.WAIT


def test_an_equal_challenger_is_neither_promoted_nor_retired() -> None:
    decision = look(CHAMPION, people(1, 150, good=0.4, seed=3), share=0.5, settings=PLAIN)
    assert decision.action is Action.WAIT


def test_an_equal_challenger_is_retired_at_the_end_of_its_time() -> None:
    decision = look(CHAMPION, people(1, 100, good=0.4, seed=3), hours=336)
    assert decision.action is Action.RETIRE
    assert decision.reasons[0] == "no decision within 336 h"


def test_a_worse_challenger_goes_without_waiting_for_its_48_hours() -> None:
    decision = look(CHAMPION, people(1, 100, good=0.1), hours=25)
    assert decision.action in (Action.RETIRE, Action.ROLL_BACK)


def test_a_slow_challenger_is_rolled_back_at_once() -> None:
    slow = people(1, 140, good=0.9, latency_ms=200)
    decision = look(CHAMPION, slow, hours=1)
    assert decision.action is Action.ROLL_BACK
    assert decision.reasons[0].startswith("latency:")


def test_a_failing_challenger_is_rolled_back_at_once() -> None:
    decision = look(CHAMPION, people(1, 60, good=0.9, errors=0.3), hours=1)
    assert decision.action is Action.ROLL_BACK
    assert decision.reasons[0].startswith("errors: ")


def test_an_outage_of_both_arms_is_not_the_challengers_fault() -> None:
    both = [people(arm, 300, good=0.5, errors=0.5) for arm in (0, 1)]
    assert look(*both, hours=1, share=0.5).action is not Action.ROLL_BACK


def test_a_challenger_that_displeases_is_rolled_back() -> None:
    decision = look(people(0, 900, good=0.9), people(1, 60, good=0.3), hours=5)
    assert decision.action is Action.ROLL_BACK
    assert any(reason.startswith("negative feedback") for reason in decision.reasons)


def test_an_improvement_below_the_floor_waits() -> None:
    picky = ExperimentSettings(min_improvement=5.0, split_alpha=1e-300)
    decision = look(CHAMPION, BETTER, share=0.5, settings=picky)
    assert decision.action is Action.WAIT
    assert any("500% needed" in reason for reason in decision.reasons)


@pytest.mark.parametrize(("share", "expected"), [(0.1, 0.25), (0.25, 0.5)])
def test_a_challenger_that_does_well_gets_more_traffic(share: float, expected: float) -> None:
    decision = look(CHAMPION, people(1, 60, good=0.8), hours=5, share=share, settings=PLAIN)
    assert decision.action is Action.RAMP
    assert decision.share == expected


def test_each_step_of_a_plan_has_its_own_conditions() -> None:
    plan = ExperimentSettings(
        plan=(Step(share=0.1, min_hours=12, min_answers=70), Step(share=0.5)), split_alpha=1e-300
    )
    arms = (CHAMPION, people(1, 60, good=0.6))
    assert look(*arms, hours=11, settings=plan).action is Action.WAIT
    assert look(*arms, hours=13, settings=plan).action is Action.WAIT
    enough = people(1, 70, good=0.6)
    assert look(CHAMPION, enough, hours=13, settings=plan).share == 0.5


def test_a_challenger_that_is_behind_gets_no_more_traffic() -> None:
    assert look(CHAMPION, people(1, 40, good=0.3, seed=1), hours=5).action is Action.WAIT


def test_a_challenger_that_a_guardrail_leans_against_gets_no_more_traffic() -> None:
    slower = people(1, 60, good=0.95, seed=1, latency_ms=131)
    decision = look(people(0, 600, good=0.5, seed=1), slower, hours=10, share=0.1)
    assert decision.action is Action.WAIT
    assert "no more traffic while this may be an alarm soon" in "; ".join(decision.reasons)


def test_people_who_are_split_otherwise_than_they_should_be_decide_nothing() -> None:
    decision = look(CHAMPION, people(1, 400, good=0.8))
    assert decision.action is Action.WAIT
    assert decision.reasons[0].startswith("sample ratio mismatch: people split: 400 of 1300")
    assert look(CHAMPION, people(1, 400, good=0.8), hours=336).action is Action.RETIRE


def test_a_shadow_is_rolled_back_by_what_it_does_and_goes_on_when_it_has_answered() -> None:
    plan = ExperimentSettings(plan=(Step(share=0, min_answers=80), Step(share=0.1)))
    champion = people(0, 200, good=0.5, rated=False)

    def shadow(num: int, **how: float) -> Action:
        arm = people(1, num, rated=False, **{"good": 0.5, **how})
        return look(champion, arm, hours=2, share=0, settings=plan, stage="shadow").action

    assert shadow(50) is Action.WAIT
    assert shadow(100) is Action.RAMP
    assert shadow(100, errors=0.5) is Action.ROLL_BACK
    assert shadow(190, good=0.0) is Action.ROLL_BACK


def test_a_promotion_is_taken_back_when_those_who_kept_the_old_version_are_better_off() -> None:
    def after(good: float, hours: float) -> Action:
        arms = (people(0, 150, good=0.8), people(1, 1350, good=good))
        return look(*arms, hours=hours, share=0.1, stage="holdback").action

    assert after(0.8, 30) is Action.WAIT
    assert after(0.8, 72) is Action.CONFIRM
    assert after(0.4, 30) is Action.ROLL_BACK


def test_nothing_was_answered_yet() -> None:
    decision = look(hours=0)
    assert decision.action is Action.WAIT
    assert decision.numbers["difference"] is None


def test_the_same_answers_give_the_same_decision() -> None:
    assert look(CHAMPION, BETTER) == look(CHAMPION, BETTER)


def test_a_load_that_grows_for_both_arms_is_not_held_against_the_challenger() -> None:
    def slower_by_the_hour(arm: Arm) -> Arm:
        return Arm(
            arm.users,
            [
                replace(answer, latency_ms=(answer.latency_ms or 0) * (1 + index / 50))
                for index, answer in enumerate(arm.answers)
            ],
        )

    both = [people(arm, 300, good=0.5) for arm in (0, 1)]
    decision = look(*(slower_by_the_hour(arm) for arm in both), hours=1, share=0.5)
    assert decision.action is not Action.ROLL_BACK


def test_steps_must_grow_and_end_before_people() -> None:
    with pytest.raises(ValueError, match="plan"):
        ExperimentSettings(plan=(Step(share=0.5), Step(share=0.1)))
    with pytest.raises(ValueError, match="after the shadow phase"):
        ExperimentSettings(plan=(Step(share=0),))


def test_failures_of_one_person_are_no_alarm_but_in_the_shadow_phase() -> None:
    broken = people(1, 60, good=0.4, errors=0.5)
    of_one = Arm(broken.users, [replace(answer, unit=7) for answer in broken.answers])
    assert look(CHAMPION, broken, settings=PLAIN).action is Action.ROLL_BACK
    assert look(CHAMPION, of_one, settings=PLAIN).action is not Action.ROLL_BACK
    # Both versions answer the same people there.
    assert look(CHAMPION, of_one, settings=PLAIN, stage="shadow").action is Action.ROLL_BACK
