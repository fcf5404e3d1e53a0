import polars as pl
import pytest

from flows.curation.moderation import found_words, moderate
from registry.settings_curation import ModerationSettings

SETTINGS = ModerationSettings()


@pytest.mark.parametrize(
    "text",
    [
        "you are a sh1t",
        "f u c k this",
        "F.U.C.K this",
        "fuuuuck",
        "f*ck you",
        "a$$hole",
        "what a сunt",  # noqa: RUF001
        "ѕhit happens",  # noqa: RUF001
        "kill yourself",
        "يا ابن الكلب",
        "شَرْمُوطة",
        "شـرمـوطة",
    ],
)
def test_listed_words_are_seen_through_their_disguises(text: str) -> None:
    assert found_words(pl.Series([text]), SETTINGS)[0] is not None


@pytest.mark.parametrize(
    "text",
    [
        "kill the process",
        "I will kill the process",
        "the cock crowed",
        "Scunthorpe council",
        "assess the class",
        "class hit",
        "who received it",
        "Dick Cheney said",
        "shitake mushrooms",
        "nice weather 455",
        "خرائط المدينة",
        "كلب لطيف",
        "",
    ],
)
def test_innocent_text_passes(text: str) -> None:
    assert found_words(pl.Series([text]), SETTINGS)[0] is None


def rows(*targets: str) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "id": [str(place) for place in range(len(targets))],
            "input_text": ["write a mail"] * len(targets),
            "messages": pl.Series([None] * len(targets), dtype=pl.String),
            "target": targets,
        }
    )


def test_hits_are_held_with_their_reason_until_a_reviewer_lets_them_pass() -> None:
    found = moderate(SETTINGS)(rows("fine", "oh shit"))
    assert found.frame["id"].to_list() == ["0"]
    assert found.held == {"1": "moderation: the word 'shit'"}
    accepted = moderate(SETTINGS, accepted={"1"})(rows("fine", "oh shit"))
    assert accepted.frame.height == 2
    assert accepted.held == {}


def test_a_classifier_holds_back_what_reviewers_would_reject() -> None:
    found = moderate(SETTINGS, is_bad=lambda texts: texts.str.len_chars() / 20)(
        rows("ok", "long and bad")
    )
    assert list(found.held) == ["1"]
