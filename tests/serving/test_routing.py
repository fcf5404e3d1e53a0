"""Assignment is sticky, monotone in the share, and fair; nothing is sent where it is not loaded."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.deployment import DesiredState, LiveVersion
from serving.routing import Report, Route, assign, pin, position, settle, unit_of

OLD = LiveVersion("old", "o" * 64)
NEW = LiveVersion("new", "n" * 64)
TRIAL = DesiredState(
    workload="default",
    generation=3,
    champion=OLD,
    challenger=NEW,
    previous=None,
    share=0.1,
    experiment_id="e1",
)
BASE_ONLY = DesiredState("default", 0, None, None, None, 0.0, None)
units = st.text(max_size=40)
shares = st.floats(min_value=0, max_value=1)


def says(
    *loaded: LiveVersion, refused: tuple[LiveVersion, ...] = (), kind: str = "champion"
) -> Report:
    return Report(
        replica_id="r",
        kind=kind,
        seen_at=datetime(2026, 1, 1, tzinfo=UTC),
        versions={version.version: version.adapter_digest for version in loaded},
        refused={version.version: "damaged" for version in refused},
    )


@given(units, shares)
def test_a_unit_always_gets_the_same_version(unit: str, share: float) -> None:
    state = replace(TRIAL, share=share)
    assert assign(state, unit=unit) == assign(state, unit=unit)


@given(units, shares, shares)
def test_raising_the_share_keeps_everyone_in(unit: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    if assign(replace(TRIAL, share=low), unit=unit).role == "challenger":
        assert assign(replace(TRIAL, share=high), unit=unit).role == "challenger"


@given(st.text(), st.text())
def test_positions_lie_in_the_unit_interval(experiment: str, unit: str) -> None:
    assert 0 <= position(experiment, unit) < 1


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_the_share_is_respected(share: float) -> None:
    state = replace(TRIAL, share=share)
    roles = [assign(state, unit=f"user:{number}").role for number in range(10_000)]
    assert roles.count("challenger") / 10_000 == pytest.approx(share, abs=0.012)


def test_several_challengers_have_equal_parts_and_one_that_leaves_moves_its_own_people_only() -> (
    None
):
    others = tuple(LiveVersion(name, name[0] * 64) for name in ("alpha", "beta"))
    state = replace(TRIAL, share=0.6, rivals=others)
    left = replace(state, challenger=others[0], rivals=others[1:])
    units = [f"user:{number}" for number in range(10_000)]
    before, after = ([assign(each, unit=unit).version for unit in units] for each in (state, left))
    for live in state.challengers:
        assert before.count(live) / 10_000 == pytest.approx(0.2, abs=0.015)
    assert all(a == b for a, b in zip(before, after, strict=True) if a != NEW)
    assert {b for a, b in zip(before, after, strict=True) if a == NEW} == set(others)


def test_of_several_challengers_one_that_is_refused_gets_no_traffic() -> None:
    rival = LiveVersion("rival", "r" * 64)
    desired = replace(TRIAL, rivals=(rival,))
    waiting = settle(desired, [says(OLD, NEW)], current=BASE_ONLY)
    assert waiting == BASE_ONLY
    found = settle(desired, [says(OLD, rival, refused=(NEW,))], current=BASE_ONLY)
    assert found is not None
    assert (found.challengers, found.experiment_id) == ((rival,), "e1")


def test_experiments_draw_their_people_independently() -> None:
    both = sum(
        position("e1", f"u{number}") < 0.1 and position("e2", f"u{number}") < 0.1
        for number in range(10_000)
    )
    assert 60 <= both <= 145


def test_both_arms_count_and_a_lone_champion_does_not() -> None:
    everyone = replace(TRIAL, share=1.0)
    assert assign(everyone, unit="u") == Route("challenger", NEW, "e1")
    few = replace(TRIAL, share=1e-12)
    assert assign(few, unit="u") == Route("champion", OLD, "e1")
    alone = replace(TRIAL, challenger=None, share=0.0, experiment_id=None)
    assert assign(alone, unit="u") == Route("champion", OLD, None)
    assert assign(BASE_ONLY, unit="u") == Route("default", None, None)


def test_the_unit_is_the_user_then_the_session_then_the_request() -> None:
    assert unit_of(user_id="a", session_id="b", request_id="c") == "user:a"
    assert unit_of(user_id=None, session_id="b", request_id="c") == "session:b"
    assert unit_of(user_id=None, session_id=None, request_id="c") == "request:c"


def test_a_named_version_is_pinned_and_never_counted() -> None:
    assert pin(TRIAL, "new", base_model="embedded") == Route("challenger", NEW, None, pinned=True)
    assert pin(TRIAL, "old", base_model="embedded") == Route("champion", OLD, None, pinned=True)
    assert pin(TRIAL, "embedded", base_model="embedded") == Route("default", None, pinned=True)
    assert pin(TRIAL, "gone", base_model="embedded") is None


def test_champion_and_challenger_are_names_too() -> None:
    assert pin(TRIAL, "champion", base_model="b") == Route("champion", OLD, None, pinned=True)
    assert pin(TRIAL, "challenger", base_model="b") == Route("challenger", NEW, None, pinned=True)
    assert pin(BASE_ONLY, "champion", base_model="b") == Route("default", None, pinned=True)
    assert pin(BASE_ONLY, "challenger", base_model="b") is None


def test_a_paused_trial_counts_nobody() -> None:
    assert assign(replace(TRIAL, share=0.0), unit="u") == Route("champion", OLD, None)


def test_a_new_version_waits_until_every_replica_has_it() -> None:
    before = replace(BASE_ONLY, generation=2, champion=OLD)
    half = [says(OLD, NEW), says(OLD)]
    assert settle(TRIAL, half, current=before) == before
    assert settle(TRIAL, half, current=None) is None
    assert settle(TRIAL, [says(OLD, NEW), says(OLD, NEW)], current=before) == TRIAL
    assert settle(TRIAL, [], current=before) == before


def test_a_version_name_with_another_digest_is_not_that_version() -> None:
    other = LiveVersion("new", "x" * 64)
    assert settle(TRIAL, [says(OLD, other)], current=None) is None


def test_a_refused_challenger_gets_no_traffic() -> None:
    settled = settle(TRIAL, [says(OLD, NEW), says(OLD, refused=(NEW,))], current=None)
    assert settled == replace(TRIAL, challenger=None, share=0.0, experiment_id=None)


def test_a_refused_champion_is_stood_in_for_by_the_previous_one() -> None:
    desired = replace(BASE_ONLY, generation=4, champion=NEW, previous=OLD)
    settled = settle(desired, [says(OLD, refused=(NEW,))], current=None)
    assert settled is not None
    assert settled.champion == OLD
    first = replace(BASE_ONLY, generation=1, champion=NEW)
    settled = settle(first, [says(refused=(NEW,))], current=None)
    assert settled is not None
    assert settled.champion is None


def test_a_base_champion_may_be_challenged() -> None:
    desired = replace(TRIAL, champion=None)
    assert settle(desired, [says(NEW)], current=None) == desired


def test_in_the_shadow_phase_the_champion_answers_and_its_answers_count() -> None:
    shadow = replace(TRIAL, share=0.0, mode="shadow")
    route = assign(shadow, unit="user:a")
    assert (route.role, route.experiment_id) == ("champion", TRIAL.experiment_id)


def test_after_a_first_promotion_some_keep_the_base_model() -> None:
    held = replace(TRIAL, challenger=None, share=0.5, mode="holdback")
    roles = {assign(held, unit=f"user:{number}").role for number in range(50)}
    assert roles == {"champion", "default"}
    assert settle(held, [says(OLD)], current=None) == held
