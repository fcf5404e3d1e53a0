import json
from collections.abc import Sequence

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.curation_data import PII, Writer, clean_text, planted
from flows.curation.pii import scrubbing
from flows.curation.pii.patterns import plain
from flows.curation.pii.scrubbing import Scrubber, scrub
from registry.settings_curation import PiiSettings

SETTINGS = PiiSettings()
NUM_CANARIES = 500


def frame(texts: list[str], messages: list[str | None] | None = None) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "input_text": texts,
            "messages": messages or [None] * len(texts),
            "target": texts,
            "rejected": texts,
        },
        schema=dict.fromkeys(scrubbing.TEXTS, pl.String),
    )


@pytest.mark.parametrize("kind", sorted(PII))
def test_canaries_are_replaced(kind: str) -> None:
    write = Writer(3)
    values, texts = zip(*(planted(write, kind) for _ in range(NUM_CANARIES)), strict=True)
    found = scrub(SETTINGS)(frame(list(texts))).frame
    missed = [value for value, text in zip(values, found["target"], strict=True) if value in text]
    assert len(missed) <= 0.02 * NUM_CANARIES, missed[:5]


def test_clean_text_stays_as_it_is() -> None:
    write = Writer(4)
    texts = [clean_text(write) for _ in range(2000)]
    found = scrub(SETTINGS)(frame(texts)).frame["target"].to_list()
    touched = [text for text, after in zip(texts, found, strict=True) if text != after]
    assert len(touched) <= 0.005 * len(texts), touched[:3]


def test_the_same_value_has_the_same_placeholder_everywhere_in_a_sample() -> None:
    turns = [{"role": "user", "content": "line\nbob@example.com and amy@example.com"}]
    rows = frame(["write to amy@example.com"], [json.dumps(turns)])
    row = scrub(SETTINGS)(rows).frame.row(0, named=True)
    assert row["input_text"] == "write to <EMAIL_1>"
    assert json.loads(row["messages"])[0]["content"] == "line\n<EMAIL_2> and <EMAIL_1>"


def test_numbers_in_arabic_digits_are_the_same_numbers() -> None:
    text = Scrubber(SETTINGS).text("call 050 123 4567, رقم الجوال ٠٥٠١٢٣٤٥٦٧")
    assert text == "call <PHONE_1>, رقم الجوال <PHONE_1>"


def test_a_name_finder_can_be_plugged_in() -> None:
    def finder(texts: Sequence[str]) -> list[list[tuple[int, int, str]]]:
        return [[(text.index("Amal"), text.index("Amal") + 4, "PERSON")] for text in texts]

    found = scrub(SETTINGS, name_finder=finder)(frame(["Amal wrote it, thank Amal"]))
    assert found.frame["target"][0] == "<PERSON_1> wrote it, thank <PERSON_1>"
    assert found.notes == {"PERSON replaced": 1}


@given(st.text(max_size=200))
def test_any_text_can_be_scrubbed_and_again_without_change(text: str) -> None:
    assert len(plain(text)) == len(text)
    once = Scrubber(SETTINGS).text(text)
    assert Scrubber(SETTINGS).text(once) == once


PIECES = st.sampled_from(
    (
        *(
            "password",
            "API-Key",
            "access token",
            "client_secret",
            "pwd",
            "كلمة المرور",
            "كلمة السر",
        ),
        *(":", "=", " is ", "هي", '"', "'", "\n", " ", "\t", "\u00a0", "?", "&", "https://a.io/"),
        *(
            "token",
            "sig",
            "aB3$xY9_qq",
            "sk-live-0123456789abcdefghij",
            "Bearer",
            "amy@example.com",
        ),
        *("abcdefghij0123456789", "+966 50 123 4567", "SSN 856-45-6789", "10.0.0.7", "fe80::1"),
        *("4111 1111 1111 1111", "DE89 3704 0044 0532 0130 00", "٠٥٠١٢٣٤٥٦٧", "12345678Z"),
    )
)


@given(st.lists(PIECES, max_size=8).map("".join))
def test_what_the_patterns_find_the_first_pass_has_seen(text: str) -> None:
    if Scrubber(SETTINGS).text(text) == text:
        return
    seen = pl.DataFrame({"as_text": [text], "as_json": [json.dumps([text], ensure_ascii=False)]})
    found = seen.select(scrubbing.is_suspicious(name).alias(name) for name in seen.columns)
    assert found.row(0) == (True, True)


def test_a_long_text_takes_no_long_time() -> None:
    text = "1 2 3 4 5 6 7 a@b:c::d " * 40_000
    assert Scrubber(SETTINGS).text(text)
