"""The rubric calls good what a person would, and names each fault."""

from __future__ import annotations

import random

import pytest

from registry import prompts
from training.base_model.policy import mediocre
from training.base_model.requests import Request, ideal, ideal_sections, sample_request
from training.base_model.rubric import judge

REQUEST = Request(
    text="Write a warm email to Dr. Obi about the owl count, mention the barn, max 90 words",
    target_tool="email",
    language="ar",
    slots={
        "task": "the owl count",
        "audience": "Dr. Obi",
        "tone": "warm",
        "mention": "the barn",
        "limit": "90",
    },
)


def answer(**changes: str) -> str:
    return prompts.render({**ideal_sections(REQUEST), **changes})


def test_the_ideal_answer_is_good_with_every_slot_right() -> None:
    verdict = judge(REQUEST, ideal(REQUEST))
    assert (verdict.good, verdict.slots_right, verdict.slots_total) == (True, 4, 4)
    assert verdict.score == 5


def test_dress_and_free_role_and_format_do_not_matter() -> None:
    dressed = answer(Role="a kind writer", Format="three lines").replace("Role:", "**Role:**")
    assert judge(REQUEST, dressed).good


@pytest.mark.parametrize(
    ("change", "fault", "slots", "score"),
    [
        ({"Task": "the owl counts"}, "task", (3, 4), 1),
        ({"Context": "for Dr. Obo"}, "audience", (3, 4), 2),
        ({"Context": "for everyone"}, "audience", (3, 3), 2),
        ({"Tone": "professional"}, "tone", (4, 4), 3),
        ({"Constraints": "in English, under 90 words, mention the barn"}, "language", (4, 4), 3),
        ({"Constraints": "in Arabic, under 90 words"}, "mention", (3, 3), 3),
        ({"Constraints": "in Arabic, mention the barn"}, "limit", (3, 3), 3),
        ({"Constraints": "in Arabic, under 90 words, mention the bar"}, "mention", (3, 4), 3),
        ({"Format": "short, short"}, "repeated", (4, 4), 3),
    ],
)
def test_each_departure_is_one_fault(
    change: dict[str, str], fault: str, slots: tuple[int, int], score: int
) -> None:
    verdict = judge(REQUEST, answer(**change))
    assert not verdict.good
    assert verdict.faults == (fault,)
    assert (verdict.slots_right, verdict.slots_total) == slots
    assert verdict.score == score


def test_an_answer_that_is_no_prompt_scores_one() -> None:
    verdict = judge(REQUEST, "Dear Dr. Obi, the owls are fine.")
    assert verdict.score == 1
    assert "unparsed" in verdict.faults


def test_ideal_answers_are_always_good_and_mediocre_ones_sometimes() -> None:
    rng = random.Random(0)
    drawn = [sample_request(rng) for _ in range(400)]
    assert all(judge(request, ideal(request)).good for request in drawn)
    good = [judge(request, mediocre(request, rng)).good for request in drawn]
    assert 0.3 < sum(good) / len(good) < 0.6


def test_bad_habits_leave_the_typed_words_alone() -> None:
    rng = random.Random(1)
    for _ in range(300):
        request = sample_request(rng)
        verdict = judge(request, mediocre(request, rng))
        assert verdict.slots_right == verdict.slots_total
        assert "task" not in verdict.faults
