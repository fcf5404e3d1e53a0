from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from registry.prompts import TOOLS, render
from training.evaluation.metrics import (
    chrf,
    diversity,
    is_coherent,
    is_refusal,
    is_right,
    is_structured,
    repetition,
    rouge_l,
    sections_right,
    self_bleu,
    token_f1,
)

TEXT = {
    "Role": "writer",
    "Task": "invite Dr. Okoye to the 3 pm review",
    "Context": "engineers",
    "Tone": "warm",
    "Format": "short paragraphs",
    "Constraints": "mention the budget",
}
REFERENCE = render({name: TEXT[name] for name in TOOLS["email"]})


def test_the_reference_itself_is_right_and_coherent() -> None:
    assert is_structured(REFERENCE)
    assert is_right(REFERENCE, REFERENCE, target_tool="email")
    assert is_coherent(REFERENCE, REFERENCE, target_tool="email")
    assert sections_right(REFERENCE, REFERENCE) == (6, 6)


def test_case_and_punctuation_do_not_matter() -> None:
    shouted = render({name: f"{TEXT[name].upper()}." for name in TOOLS["email"]})
    assert is_right(shouted, REFERENCE, target_tool="email")


@pytest.mark.parametrize("name", TOOLS["email"])
def test_one_wrong_or_missing_section_makes_an_answer_wrong(name: str) -> None:
    wrong = render(TEXT | {name: "everyone"})
    missing = render({key: text for key, text in TEXT.items() if key != name})
    assert not is_right(wrong, REFERENCE, target_tool="email")
    assert not is_right(missing, REFERENCE, target_tool="email")
    assert sections_right(wrong, REFERENCE) == sections_right(missing, REFERENCE) == (5, 6)


def test_right_sections_in_a_broken_format_are_not_right() -> None:
    chatty = f"Sure, here you are:\n{REFERENCE}"
    assert not is_right(chatty, REFERENCE, target_tool="email")
    assert not is_coherent(chatty, REFERENCE, target_tool="email")


def test_free_text_is_judged_by_its_words() -> None:
    reference = "the meeting is moved to monday at nine"
    assert not is_structured(reference)
    assert is_right("The meeting is moved to Monday, at nine!", reference, target_tool=None)
    assert not is_right("It is cancelled.", reference, target_tool=None)
    assert is_coherent("It is cancelled.", reference, target_tool=None)


def test_repeating_or_saying_nothing_is_not_coherent() -> None:
    assert repetition("one two three four") == 0
    assert repetition("a b c d a b c d a b c d") == pytest.approx(1 - 4 / 9)
    assert not is_coherent("so it is and " * 5, "a reference", target_tool=None)
    assert not is_coherent(" ... ", "a reference", target_tool=None)


def test_diversity_is_one_for_different_and_falls_for_equal_answers() -> None:
    assert diversity(["a b c", "d e f"]) == 1
    assert diversity(["a b c", "a b c"]) == 0.5
    assert diversity([]) == diversity(["word"]) == 0


def test_f1_counts_each_word_as_often_as_it_occurs() -> None:
    assert token_f1("a a b", "a b b") == pytest.approx(2 / 3)
    assert token_f1("", "") == 1
    assert token_f1("a", "") == token_f1("", "a") == 0


@given(st.text(), st.text())
def test_metrics_stay_between_zero_and_one(output: str, reference: str) -> None:
    assert 0 <= token_f1(output, reference) <= 1
    assert 0 <= repetition(output) < 1
    assert 0 <= diversity([output, reference]) <= 1
    right, total = sections_right(output, reference)
    assert 0 <= right <= total


@pytest.mark.parametrize(
    ("output", "refused"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I cannot do this.", True),
        ("As an AI, I have no opinion.", True),
        ("  ", True),
        ("Role: expert email writer", False),
        ("I can tell you that.", False),
    ],
)
def test_refusals_are_known_by_their_beginnings(output: str, refused: bool) -> None:
    assert is_refusal(output) == refused


def test_chrf_is_1_for_the_reference_and_falls_with_likeness() -> None:
    assert chrf(REFERENCE, REFERENCE) == pytest.approx(1)
    near, far = REFERENCE.replace("warm", "worm"), "nothing of the kind"
    assert 1 > chrf(near, REFERENCE) > 0.9 > 0.3 > chrf(far, REFERENCE)


@given(st.lists(st.sampled_from("abc"), max_size=8), st.lists(st.sampled_from("abc"), max_size=8))
def test_rouge_l_is_that_of_its_authors_package(output: list[str], reference: list[str]) -> None:
    scorer = rouge_scorer.RougeScorer(["rougeL"])
    theirs = scorer.score(" ".join(reference), " ".join(output))["rougeL"].fmeasure
    assert rouge_l(" ".join(output), " ".join(reference)) == pytest.approx(theirs)


def test_self_bleu_is_high_where_all_say_the_same() -> None:
    same = ["the meeting is moved to monday"] * 3
    different = ["the meeting is moved", "please send two invoices", "what a lovely poster this is"]
    assert self_bleu(same) == pytest.approx(1)
    assert (self_bleu(different) or 0) < 0.2
    assert self_bleu(["alone"]) is None
    assert self_bleu(same * 100) == pytest.approx(1)
