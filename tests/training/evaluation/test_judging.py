"""A language model as judge, against a server of the tests' own."""

from __future__ import annotations

import threading

import pytest

from tests.support.fake_judge import fake_judge
from training.evaluation.judging import MAX_FAILURES, Judge, judge_answers, read_mark
from training.evaluation.suite import Answer, EvalExample, judge

QUESTION = ({"role": "user", "content": "Say something"},)


def _answered(*outputs: str) -> tuple[list[EvalExample], list[Answer]]:
    examples = [
        EvalExample(id=str(number), messages=QUESTION, reference="something")
        for number in range(len(outputs))
    ]
    answers = [
        judge(each, said, num_tokens=1) for each, said in zip(examples, outputs, strict=True)
    ]
    return examples, answers


@pytest.mark.parametrize(("said", "mark"), [("[[4]]", 4), (" 5\n", 5), ("Good: [[ 2 ]] so", 2)])
def test_a_mark_is_found_where_it_was_asked_for(said: str, mark: int) -> None:
    assert read_mark(said) == mark


@pytest.mark.parametrize("said", ["", "[[6]]", "4 of 5", "fine"])
def test_anything_else_is_no_mark(said: str) -> None:
    with pytest.raises(ValueError, match="no mark in"):
        read_mark(said)


def test_every_answer_is_judged_beside_its_request_and_reference() -> None:
    with fake_judge(lambda said: "[[5]]" if said == "good" else "[[1]]") as server:
        asked = Judge(url=server.url, model="m", api_key="k")
        found = judge_answers(asked, *_answered("good", "bad", "good", "good"))
    assert (found.mean, found.num_judged, found.num_failed) == (0.75, 4, 0)
    assert found.interval is not None
    assert found.interval[0] <= 0.75 <= found.interval[1]
    assert server.keys == {"Bearer k"}
    assert {body["model"] for body in server.asked} == {"m"}
    text = server.asked[0]["messages"][-1]["content"]
    assert "user: Say something" in text
    assert "[Reference answer]\nsomething" in text


def test_no_more_are_asked_at_once_and_in_all_than_was_said() -> None:
    together = threading.Barrier(2, timeout=30)

    def wait(_said: str) -> str:
        together.wait()
        return "[[3]]"

    with fake_judge(wait) as server:
        asked = Judge(url=server.url, model="m", concurrency=2, max_answers=4)
        found = judge_answers(asked, *_answered(*"abcdefgh"))
    assert (found.num_judged, server.most_at_once) == (4, 2)


def test_what_is_late_or_has_no_mark_is_counted_and_left_out() -> None:
    go_on = threading.Event()

    def say(said: str) -> str:
        if said == "slow":
            go_on.wait(30)
        return "[[5]]" if said == "good" else "hm"

    with fake_judge(say) as server:
        asked = Judge(url=server.url, model="m", timeout_s=3.0, concurrency=1)
        found = judge_answers(asked, *_answered("good", "slow", "odd", "good"))
        go_on.set()
    assert (found.mean, found.num_judged, found.num_failed) == (1.0, 2, 2)


def test_a_judge_that_is_not_there_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    with fake_judge(lambda _said: "[[5]]", status=500) as server:
        asked = Judge(url=server.url, model="m", concurrency=1)
        found = judge_answers(asked, *_answered(*"abcdefghij"))
    assert len(server.asked) == MAX_FAILURES
    assert (found.mean, found.interval, found.num_failed) == (None, None, 10)
    assert "left 10 answers unjudged" in caplog.text
