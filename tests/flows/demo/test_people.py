from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from flows.demo.people import RATING_RATE, People, examine, held_out_requests
from registry import prompts
from tests.support.fake_endpoint import fake_endpoint

NUM = 200


@dataclass
class Crowd:
    """What people said of answers that are all poor."""

    feedback: list[dict[str, Any]]
    good: list[bool]

    def praise(self) -> list[dict[str, Any]]:
        return [item for item in self.feedback if 5 in item.values() or item.get("thumb") == 1]


def poor(_body: dict[str, Any]) -> str:
    return "Role: nobody"


def use(num: int, *, seed: int = 1) -> Crowd:
    with fake_endpoint(poor) as endpoint:
        people = People(endpoint.url, seed=seed, correction_rate=0.5)
        answers = people.use(num, on_answer=lambda: None)
    return Crowd(endpoint.feedback, [answer.verdict.good for answer in answers])


@pytest.fixture(scope="module")
def crowd() -> Crowd:
    return use(NUM)


def test_most_rate_and_one_in_ten_says_the_opposite(crowd: Crowd) -> None:
    assert not any(crowd.good)
    assert len(crowd.feedback) / NUM == pytest.approx(RATING_RATE, abs=0.06)
    assert len(crowd.praise()) / len(crowd.feedback) == pytest.approx(0.10, abs=0.06)


def test_the_disappointed_write_corrections_that_keep_the_format(crowd: Crowd) -> None:
    found = [item["corrected_output"] for item in crowd.feedback if "corrected_output" in item]
    assert len(found) / len(crowd.feedback) == pytest.approx(0.45, abs=0.1)
    assert all(prompts.parse(text) for text in found)


def test_nobody_corrects_what_they_praise(crowd: Crowd) -> None:
    assert crowd.praise()
    assert not any("corrected_output" in item for item in crowd.praise())


def test_opinions_hang_on_the_seed_alone_whatever_the_timing() -> None:
    def opinions(seed: int) -> list[tuple[int, int]]:
        found = use(30, seed=seed).feedback
        return sorted((item.get("score", 0), item.get("thumb", 0)) for item in found)

    assert opinions(1) == opinions(1)
    assert opinions(1) != opinions(2)


def test_a_failed_request_is_not_hidden() -> None:
    with fake_endpoint(poor, status=500) as endpoint:
        people = People(endpoint.url, seed=1, correction_rate=0)
        with pytest.raises(httpx.HTTPStatusError):
            people.use(3, on_answer=lambda: None)


def test_an_examination_is_greedy_pinned_and_unrated() -> None:
    requests = held_out_requests(1, 20)
    with fake_endpoint(poor) as endpoint:
        answers = examine(endpoint.url, requests, version="v7")
    assert [answer.request for answer in answers] == requests
    assert all(body["model_version"] == "v7" for body in endpoint.asked)
    assert all(body["temperature"] == 0 for body in endpoint.asked)
    assert all("user_id" not in body for body in endpoint.asked)
    assert endpoint.feedback == []
