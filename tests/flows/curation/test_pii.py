import json
import random
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


def wide(text: str) -> str:
    """In full-width characters."""
    return "".join(chr(ord(letter) + 0xFEE0) for letter in text)


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
        *(
            "4111 1111 1111 1111 12/27",
            "5555\t5555\u20135555.4444",
            f"{wide('DE')}89.3704.0044.0532.0130.00",
        ),
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


CARD = "4111 1111 1111 1111"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"{CARD} 12/27 123", "<CARD_1> 12/27 123"),
        ("4111111111111111 12/27", "<CARD_1> 12/27"),
        ("4111-1111-1111-1111 05/28 321", "<CARD_1> 05/28 321"),
        ("Visa 4242424242424242 124", "Visa <CARD_1> 124"),
        ("qty 2 4242 4242 4242 4242", "qty 2 <CARD_1>"),
        ("amex 3782 822463 10005 exp 11 28", "amex <CARD_1> exp 11 28"),
        (f"{CARD}/5555 5555 5555 4444", "<CARD_1>/<CARD_2>"),
        ("No.4111111111111111", "No.<CARD_1>"),
        *(
            (CARD.replace(" ", between), "<CARD_1>")
            for between in (".", "/", "\t", "  ", " - ", "\u2013", "\u2011", "\u2009", "\u3000")
        ),
    ],
)
def test_a_card_is_redacted_whatever_its_groups_and_what_stands_beside_it(
    text: str, left: str
) -> None:
    found = scrub(SETTINGS)(frame([text], [json.dumps([text], ensure_ascii=False)])).frame
    assert found["target"][0] == left
    assert json.loads(found["messages"][0]) == [left]


@pytest.mark.parametrize(
    "text",
    [
        "order 4111111111111112 of 4242 4242 4242 4241",
        "at 1700000000123 1700000060123 1700000120123 1700000180124",
        "stamp 20240101123045 and 20240229235959",
        "ISBN 978-3-16-148410-0, 9783161484100",
        "ratio 0.4111111111111111",
        "counts 41 111 1111 1 111 1111",
        "0000 0000 0000 0000",
    ],
)
def test_numbers_that_no_issuer_gives_are_no_cards(text: str) -> None:
    assert "<CARD" not in Scrubber(SETTINGS).text(text)


def test_digits_in_any_groups_are_cards_no_more_often_than_chance() -> None:
    rng = random.Random(5)
    texts = [
        " ".join(str(rng.randrange(10 ** rng.randint(1, 6))) for _ in range(9)) for _ in range(500)
    ]
    assert (
        sum("<CARD" in Scrubber(PiiSettings(second_pass=False)).text(text) for text in texts) < 10
    )


@pytest.mark.parametrize(
    "written",
    [
        "DE89.3704.0044.0532.0130.00",
        "DE89\u20133704\u20130044\u20130532\u20130130\u201300",
        "DE89  3704  0044  0532  0130  00",
        wide("DE89370400440532013000"),
        wide("GB82WEST12345698765432"),
    ],
)
def test_an_iban_is_redacted_whatever_its_groups_and_letters(written: str) -> None:
    found = scrub(SETTINGS)(frame([f"IBAN {written} thanks"])).frame
    assert found["target"][0] == "IBAN <IBAN_1> thanks"


def test_letters_that_only_look_alike_are_no_iban_and_no_error() -> None:
    text = "DE89 3704 0044 0532 0130 0\u212a and DE89 3704 0044 0532 0130 0\u017f"
    assert "<IBAN" not in Scrubber(SETTINGS).text(text)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("_jane@example.com_", "<EMAIL_1>_"),
        ("jane.doe@example.com-- bye", "<EMAIL_1>-- bye"),
        ("jane@example.com-", "<EMAIL_1>-"),
        ("jane@example.com, jane@example.com.", "<EMAIL_1>, <EMAIL_1>."),
        (f"发邮件到jane@example.com{'我们会回复' * 20}", f"发邮件到<EMAIL_1>{'我们会回复' * 20}"),
        (f"{'请发邮件' * 30}到jane@example.com", f"{'请发邮件' * 30}到<EMAIL_1>"),
        ("jane@example.xn--p1ai", "<EMAIL_1>"),
        ("иван@пример.рф", "<EMAIL_1>"),
        ("jörg.müller@firma.de", "<EMAIL_1>"),
        ("用户@例子.广告", "<EMAIL_1>"),
        (f"{'x' * 100}@example.com", "<EMAIL_1>"),
        (wide("jane@example.com"), "<EMAIL_1>"),
        (
            "npm i left-pad@1.3.0 and @team at 5 @ 3.50",
            "npm i left-pad@1.3.0 and @team at 5 @ 3.50",
        ),
    ],
)
def test_an_address_is_redacted_whatever_stands_beside_it(text: str, left: str) -> None:
    assert Scrubber(SETTINGS).text(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "on 05-06-2024 we met",
        "from 01-02-2023 10:30 to 02-02-2023 11:45",
        "01.02.2023 - 05.06.2024",
        "call me 2024-05-06",
        "ISBN 0-13-110362-8 or 0 8044 2957 X",
        "doi 10.1038/s41586-020-2649-2",
        "matrix 0 1 0 0 1 0 1 1 0",
        "ADD CONSTRAINT pk_order_line_item_warehouse",
        "class sk-loading-spinner-wrapper-large",
        "pk_orders_2_line_items_by_warehouse",
        "sk-loadingSpinnerWrapperExtraLarge",
        "sk-" + "-" * 25,
        "pk_" + "_" * 25,
    ],
)
def test_dates_books_and_names_of_things_stay(text: str) -> None:
    assert Scrubber(SETTINGS).text(text) == text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("05-06-2024 050 123 4567", "05-06-2024 <PHONE_1>"),
        ("call 0501234567-0507654321", "call <PHONE_1>-<PHONE_2>"),
        ("call me: 0 5 0 1 2 3 4 5 6 7", "call me: <PHONE_1>"),
        ("sk_live_abcdEFGHijklMNOPqrstUVWX", "<SECRET_1>"),
        ("sk-proj-Ab3dEf6hIj9l_mNoPq2sTuV-xYz", "<SECRET_1>"),
        ("sk-lf-3f2b1c4d-5e6f-4a7b-8c9d-0e1f2a3b4c5d", "<SECRET_1>"),
    ],
)
def test_beside_dates_and_without_digits_there_is_personal_data(text: str, left: str) -> None:
    assert Scrubber(SETTINGS).text(text) == left


@pytest.mark.parametrize(
    ("piece", "number"),
    [
        ("a@b.co ", 80_000),
        ("eyJaaaaaaaa-", 80_000),
        ("856-45-6789 ", 12_000),
        (f"{CARD} ", 10_000),
        ("05-06-2024 ", 10_000),
        ("@a.b", 100_000),
        ("4", 400_000),
    ],
)
def test_a_long_text_of_matches_takes_no_long_time(piece: str, number: int) -> None:
    assert Scrubber(SETTINGS).text(piece * number)


def test_what_stands_across_two_parts_of_a_long_text_is_found() -> None:
    for shift in range(24):
        text = f"{'.' * (1990 - shift)} my ssn is 856-45-6789 {'.' * 2000}"
        assert "856-45" not in Scrubber(SETTINGS).text(text)
