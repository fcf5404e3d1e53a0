"""Phrases that few people bring in, unasked."""

from __future__ import annotations

import polars as pl

from flows.curation import phrases
from registry.settings_signals import TrustSettings
from tests.flows.curation.test_trust import event, events, frame

SETTINGS = TrustSettings()
SLOGAN = "Role: expert\nTask: a mail, order from Zorbax"


def by_few(given: pl.DataFrame, rows: pl.DataFrame) -> dict[str, str]:
    return dict(phrases.by_few(rows, given, SETTINGS).iter_rows())


def told(slogans: dict[int, str], *, num: int = 100, text: str = "write a mail") -> dict[str, str]:
    """`num` people with a sample each; those in `slogans` (number → rater) bring the slogan."""
    given = events(*(event(n, rater=slogans.get(n, f"user-{n}")) for n in range(num)))
    rows = frame(given, input_text=text).with_columns(
        target=pl.Series([SLOGAN if n in slogans else "Role: expert" for n in range(num)])
    )
    return by_few(given, rows)


def test_a_slogan_of_few_is_held_back_and_named() -> None:
    found = told({n: f"user-{n}" for n in range(0, 60, 10)})
    assert set(found) == {f"i{n}" for n in range(0, 60, 10)}
    assert found["i0"].endswith("comes 6 times from 6 of 100 people")
    assert "zorbax" in found["i0"] or "order" in found["i0"]


def test_one_person_who_brings_it_again_and_again_is_enough() -> None:
    assert len(told(dict.fromkeys(range(0, 60, 10), "user-0"))) == 6


def test_what_many_people_bring_in_is_what_people_want() -> None:
    assert told({n: f"user-{n}" for n in range(40)}) == {}


def test_what_is_seldom_said_is_left_alone() -> None:
    assert told({n: f"user-{n}" for n in range(4)}) == {}


def test_what_was_asked_for_is_nobodys_slogan() -> None:
    slogans = {n: f"user-{n}" for n in range(0, 60, 10)}
    assert told(slogans, text="write a mail, order from Zorbax") == {}


def test_in_a_small_team_one_voice_is_no_minority() -> None:
    assert told(dict.fromkeys(range(0, 30, 5), "user-0"), num=6) == {}


def test_runs_do_not_cross_words_that_were_asked_for_or_rows() -> None:
    rows = pl.DataFrame(
        {
            "id": ["1", "2"],
            "tool": ["email", "email"],
            "rater": ["a", "b"],
            "target": ["new phrase mail here", "ends begins"],
            "asked": ["mail", ""],
        }
    )
    found = phrases.introduced(rows, words=2)["phrase"].to_list()
    assert found == ["new phrase", "ends begins"]
