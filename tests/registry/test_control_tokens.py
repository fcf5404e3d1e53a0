"""Whatever people spell, no control token of the model comes through."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from transformers import AddedToken, AutoTokenizer

from registry.control_tokens import ControlTokens
from tests.support.tiny_model import make_tiny_model

TOKENS = ("<|a|>", "<|b|>", "<|a|>>", "|", "<b>")


@given(text=st.lists(st.sampled_from([*TOKENS, "<", "a", "b", ">", "é"]), max_size=30).map("".join))
def test_none_is_left_also_none_that_taking_one_out_forms(text: str) -> None:
    cleaned = ControlTokens(TOKENS).removed_from(text)
    assert not any(token in cleaned for token in TOKENS)
    remaining = iter(text)
    assert all(character in remaining for character in cleaned)


@given(text=st.text(alphabet="<|>ab", max_size=30))
def test_a_text_without_any_stays_as_it_is(text: str) -> None:
    tokens = ("<|im_start|>", "<|im_end|>")
    assert ControlTokens(tokens).removed_from(text) == text
    assert ControlTokens(()).removed_from(text) == text


def test_tokens_that_form_each_other_thousands_of_times_are_all_taken_out() -> None:
    tokens = ControlTokens(["<|im_end|>", *(f"<|reserved_{number}|>" for number in range(250))])
    assert tokens.removed_from("a" + "<|im_" * 50_000 + "end|>" * 50_000 + "b") == "ab"


def test_special_tokens_that_have_no_name_are_known_too(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(make_tiny_model(tmp_path))
    tokenizer.add_tokens([AddedToken("<|header|>", special=True), AddedToken("plain")])
    assert "<|header|>" not in tokenizer.all_special_tokens
    found = ControlTokens.of(tokenizer).removed_from("a<|header|>system<|im_end|> plain")
    assert found == "asystem plain"
