from dataclasses import replace

import pytest

from flows.decisions.triggers import Trigger, TriggerFacts, WindowFacts, decide
from registry.settings_decisions import TriggerSettings

SETTINGS = TriggerSettings()
WINDOW = WindowFacts(num_interactions=500, avg_quality=0.8, num_errors=0)
QUIET = TriggerFacts(
    hours_since_training=100,
    hours_since_schedule=100,
    num_new_samples=10,
    window=WINDOW,
    previous_window=WINDOW,
)


def test_nothing_fires_in_a_quiet_world() -> None:
    decision = decide(QUIET, SETTINGS)
    assert decision.trigger is None
    assert decision.reason == "no trigger fired"
    assert len(decision.checks) == 7


@pytest.mark.parametrize(
    ("facts", "trigger"),
    [
        (replace(QUIET, num_new_samples=1000), Trigger.SAMPLE_COUNT),
        (replace(QUIET, hours_since_schedule=168), Trigger.SCHEDULED),
        (replace(QUIET, window=replace(WINDOW, avg_quality=0.71)), Trigger.QUALITY_DROP),
        (replace(QUIET, window=replace(WINDOW, num_errors=101)), Trigger.ERROR_RATE),
    ],
)
def test_each_trigger_fires_at_its_default(facts: TriggerFacts, trigger: Trigger) -> None:
    assert decide(facts, SETTINGS).trigger is trigger


@pytest.mark.parametrize(
    "facts",
    [
        replace(QUIET, num_new_samples=999),
        replace(QUIET, hours_since_schedule=167.9),
        replace(QUIET, window=replace(WINDOW, avg_quality=0.721)),
        replace(QUIET, window=replace(WINDOW, num_errors=100)),
        replace(QUIET, window=WindowFacts(num_interactions=4, avg_quality=0.1, num_errors=4)),
        replace(QUIET, window=replace(WINDOW, avg_quality=None)),
        replace(QUIET, previous_window=replace(WINDOW, avg_quality=0.0)),
    ],
)
def test_just_below_a_line_nothing_fires(facts: TriggerFacts) -> None:
    assert decide(facts, SETTINGS).trigger is None


def test_the_first_in_order_wins() -> None:
    everything = replace(
        QUIET,
        num_new_samples=5000,
        hours_since_schedule=500,
        window=WindowFacts(num_interactions=500, avg_quality=0.1, num_errors=500),
    )
    assert decide(everything, SETTINGS).trigger is Trigger.SAMPLE_COUNT


def test_the_cooldown_holds_everything_back_but_force() -> None:
    fresh = replace(QUIET, hours_since_training=23.9, num_new_samples=5000)
    held = decide(fresh, SETTINGS)
    assert held.trigger is None
    assert "cooldown: 23.9 h" in held.reason
    assert decide(fresh, SETTINGS, force=True).trigger is Trigger.FORCED
    assert decide(replace(fresh, hours_since_training=24), SETTINGS).trigger is not None


def test_even_force_waits_for_a_training_under_way() -> None:
    decision = decide(replace(QUIET, is_training=True), SETTINGS, force=True)
    assert decision.trigger is None
    assert decision.reason == "a training is under way"


def test_a_blank_installation_waits() -> None:
    empty = WindowFacts(num_interactions=0, avg_quality=None, num_errors=0)
    facts = TriggerFacts(
        hours_since_training=None,
        hours_since_schedule=None,
        num_new_samples=0,
        window=empty,
        previous_window=empty,
    )
    assert decide(facts, SETTINGS).trigger is None
