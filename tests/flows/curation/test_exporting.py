"""Datasets in all their forms."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from flows.curation.diversity import capped, farthest_first
from flows.curation.exporting import as_alpaca, as_completion, card, write_split
from flows.curation.signatures import LongTexts, Signatures, sign
from registry.settings_curation import DiversitySettings

CHAT = {
    "id": "a",
    "messages": [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello", "tool_calls": [{"id": "1"}]},
        {"role": "user", "content": "and now"},
        {"role": "assistant", "content": "this"},
    ],
    "weight": 1.0,
}
PROMPT = {
    "id": "b",
    "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
}


def test_a_conversation_keeps_its_turns_in_every_form() -> None:
    alpaca, completion = as_alpaca(CHAT), as_completion(CHAT)
    assert (alpaca["instruction"], alpaca["output"]) == ("and now", "this")
    assert alpaca["input"] == "user: hi\nassistant: hello"
    assert completion["prompt"] == "user: hi\nassistant: hello\nuser: and now\nassistant:"
    assert as_completion(PROMPT)["prompt"] == "q"


def test_every_form_loads_with_the_datasets_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    forms = ("chatml", "alpaca", "completion")
    for split in ("train", "test"):
        write_split(tmp_path, split, [[CHAT], [PROMPT]], forms)
    (tmp_path / "README.md").write_text(card(forms, ("train", "test")))
    for form in forms:
        found = datasets.load_dataset(str(tmp_path), form, cache_dir=str(tmp_path / "hf"))
        assert {name: len(rows) for name, rows in found.items()} == {"train": 2, "test": 2}


def test_what_is_no_string_in_a_turn_is_written_as_one(tmp_path: Path) -> None:
    odd = {**PROMPT, "messages": [{"role": "user", "content": "q", "name": 5}, *CHAT["messages"]]}  # type: ignore[misc]
    write_split(tmp_path, "train", [[odd]], ("chatml",))
    (turns,) = pl.read_parquet(tmp_path / "train.parquet")["messages"].to_list()
    assert [turn["name"] for turn in turns][:2] == ["5", None]


def rows(number: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "id": [f"{i:03}" for i in range(number)],
            "template_id": ["t"] * number,
            "user_id": [f"u{i % 3}" for i in range(number)],
            "domain": ["code" if i % 4 else "email" for i in range(number)],
            "language": [None] * number,
            "quality_score": [0.7 + 0.3 * (i % 2) for i in range(number)],
            "reservoir_key": [(i * 7919 % 1000) / 1000 for i in range(number)],
        },
        schema_overrides={"language": pl.String},
    )


def signed(texts: list[str]) -> Signatures:
    return LongTexts(texts, sign(pl.Series(texts), min_words=1)).signatures


def signatures(ids: object) -> Signatures:
    return signed([f"w{i}" for i, _ in enumerate(ids)])  # type: ignore[call-overload]


@pytest.mark.parametrize("choice", ["score", "farthest"])
def test_no_group_exceeds_its_cap_and_the_choice_repeats_itself(choice: str) -> None:
    settings = DiversitySettings(
        max_per_user=30, max_per_domain=50, max_per_template=80, choice=choice
    )
    kept, left = capped(rows(200), settings, signatures)
    assert kept["user_id"].value_counts()["count"].max() <= 30
    assert kept["domain"].value_counts()["count"].max() <= 50
    assert left["at most 80 per template"] == 80
    assert capped(rows(200), settings, signatures)[0].equals(kept)


def test_farthest_first_takes_one_of_each_kind_before_a_second() -> None:
    kinds = signed([f"kind{i % 3} same{i % 3}" for i in range(30)])
    assert {place % 3 for place in farthest_first(kinds, 0, 3)} == {0, 1, 2}
