import random
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flows.demo.clock import SimulatedClock
from flows.demo.people import Answer, held_out_requests
from flows.demo.results import Round, Score, Story, score
from training.base_model.requests import Request, ideal, sample_request
from training.base_model.rubric import judge

POOR = Score(0.25, 0.9, {"code": 0.2, "email": 0.3})


def answer(request: Request, output: str) -> Answer:
    return Answer(request, output, "v", judge(request, output))


def story(champion: str | None, found: Score | None) -> Story:
    return Story(seed=1, base=POOR, champion=champion, champion_score=found)


def test_perfect_answers_are_rated_good_and_empty_ones_are_not() -> None:
    requests = [sample_request(random.Random(seed)) for seed in range(20)]
    perfect = score([answer(request, ideal(request)) for request in requests])
    empty = score([answer(request, "") for request in requests])
    assert (perfect.rated_good, perfect.accuracy) == (1.0, 1.0)
    assert empty.rated_good == 0.0
    assert set(perfect.by_tool) == {request.target_tool for request in requests}


def test_nothing_can_be_said_of_no_answers() -> None:
    with pytest.raises(ValueError, match="no answer"):
        score([])


def test_a_run_without_a_promotion_has_not_improved() -> None:
    assert not story(None, None).improved


@pytest.mark.parametrize(("rated_good", "improved"), [(0.9, True), (0.30, False), (0.1, False)])
def test_only_a_clear_gain_counts(rated_good: float, improved: bool) -> None:
    found = story("v1", Score(rated_good, 0.9, {"code": 0.9, "email": 0.9}))
    assert found.improved is improved


def test_a_tool_that_got_worse_is_named() -> None:
    found = story("v1", Score(0.9, 0.9, {"code": 0.05, "email": 0.9}))
    assert found.worse_tools == ["code"]


def test_the_summary_has_the_promised_keys() -> None:
    found = story("v1", POOR)
    found.rounds.append(
        Round(number=1, version="v1", score=POOR, decision="promote", reason="r", num_samples=9)
    )
    document = found.to_json()
    assert {"seed", "seconds", "phases", "base", "rounds", "champion"} <= set(document)
    assert document["rounds"][0] == {
        "round": 1,
        "version": "v1",
        "rated_good": 0.25,
        "accuracy": 0.9,
        "by_tool": {"code": 0.2, "email": 0.3},
        "decision": "promote",
        "reason": "r",
        "num_samples": 9,
    }


def test_held_out_requests_depend_on_the_seed_alone() -> None:
    assert held_out_requests(1, 5) == held_out_requests(1, 5)
    assert held_out_requests(1, 5) != held_out_requests(2, 5)


def test_the_simulated_clock_moves_for_everyone_who_shares_its_file(tmp_path: Path) -> None:
    mine = SimulatedClock(tmp_path / "clock")
    theirs = SimulatedClock(tmp_path / "clock")
    mine.advance(hours=48)
    ahead = (theirs() - datetime.now(UTC)).total_seconds() / 3600
    assert ahead == pytest.approx(48, abs=0.1)
