"""The grammar of requests: slots are what was typed, and draws repeat by seed."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import prompts
from training.base_model import words
from training.base_model.requests import NO_AUDIENCE, Request, ideal, sample_request

KINDS = [*words.KINDS, "mixed"]


def squeezed(text: str) -> str:
    return "".join(text.split())


@given(
    st.integers(0, 2**32),
    st.sampled_from(KINDS),
    st.sampled_from(list(prompts.TOOLS)),
    st.booleans(),
)
def test_every_slot_stands_in_the_text_as_typed(
    seed: int, kind: str, tool: str, tangled: bool
) -> None:
    request = sample_request(random.Random(seed), words=kind, tool=tool, tangled=tangled)
    assert request.target_tool == tool
    assert request.language in prompts.LANGUAGES
    assert request.slots["task"]
    assert request.text == request.text.strip()
    for name, slot in request.slots.items():
        # Two styles may be asked for, in two places; every other slot is one run of text.
        runs = slot.split() if name == "style" else [slot]
        assert all(squeezed(run) in squeezed(request.text) for run in runs)


@given(st.integers(0, 2**32), st.sampled_from(KINDS))
def test_the_ideal_answer_is_a_valid_prompt(seed: int, kind: str) -> None:
    request = sample_request(random.Random(seed), words=kind, unseen=False, tangled=True)
    assert prompts.normalise(ideal(request), target_tool=request.target_tool) == ideal(request)
    violations = prompts.validate(ideal(request), target_tool=request.target_tool)
    assert {violation.code for violation in violations} <= {"repeated"}


def test_equal_seeds_draw_equal_requests() -> None:
    draws = [[sample_request(random.Random(5)) for _ in range(3)] for _ in range(2)]
    assert draws[0] == draws[1]


def test_every_tool_slot_and_many_openings_occur() -> None:
    rng = random.Random(6)
    drawn = [sample_request(rng) for _ in range(600)]
    assert {request.target_tool for request in drawn} == set(prompts.TOOLS)
    slots = {name for request in drawn for name in request.slots}
    assert slots == {"task", "audience", "tone", "style", "mention", "limit"}
    assert len({request.text.split()[0].lower() for request in drawn}) > 150


def test_arabic_requests_keep_their_opening_in_the_task() -> None:
    rng = random.Random(7)
    drawn = [sample_request(rng, words="arabic") for _ in range(100)]
    assert any(not any(letter in request.text for letter in "aeiou") for request in drawn)


@pytest.mark.parametrize("tool", list(prompts.TOOLS))
def test_the_ideal_answer_names_reader_language_and_wishes(tool: str) -> None:
    slots = {"task": "count owls", "mention": "the barn", "limit": "90"}
    answer = prompts.parse(ideal(Request("…", tool, "ar", slots)))
    assert answer["Task"] == "count owls"
    assert answer["Context"] == f"for {NO_AUDIENCE}"
    assert answer["Constraints"] == "in Arabic, under 90 words, mention the barn"
