"""Fresh words: every kind, on the right side of the split."""

from __future__ import annotations

import random

import pytest

from training.base_model import grammar, words


@pytest.mark.parametrize("kind", words.KINDS)
@pytest.mark.parametrize("unseen", [True, False])
def test_words_stay_on_their_side_of_the_split(kind: str, unseen: bool) -> None:
    rng = random.Random(0)
    drawn = [words.fresh_word(rng, kind, unseen=unseen) for _ in range(200)]
    assert all(words.is_held_out(word) is unseen for word in drawn)
    assert len(set(drawn)) > 60


def test_the_split_ignores_case() -> None:
    assert words.is_held_out("Meeting") == words.is_held_out("MEETING")


def test_arabic_and_accented_words_are_what_they_are_called() -> None:
    rng = random.Random(1)
    arabic = [words.fresh_word(rng, "arabic", unseen=True) for _ in range(100)]
    accented = [words.fresh_word(rng, "accented", unseen=True) for _ in range(100)]
    assert all("\u0600" <= letter <= "\u06ff" for word in arabic for letter in word)
    assert not any(word.isascii() for word in accented)


def test_pieces_reach_invented_words() -> None:
    rng = random.Random(2)
    drawn = [words.fresh_word(rng, "invented", unseen=False, pieces=["zq"]) for _ in range(100)]
    assert any("zq" in word for word in drawn)


def test_names_have_several_parts_now_and_then() -> None:
    rng = random.Random(3)
    assert {len(words.name(rng, unseen=True).split()) for _ in range(200)} >= {1, 2, 3}


def test_the_words_of_the_grammar_are_never_unseen() -> None:
    rng = random.Random(4)
    drawn = {words.fresh_word(rng, "english", unseen=True).lower() for _ in range(3000)}
    assert {"warm", "accept", "friendly", "investors"} <= grammar.vocabulary()
    assert not drawn & grammar.vocabulary()
