import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.curation import steps
from flows.curation.frames import SCHEMA
from flows.curation.splitting import with_split
from registry.settings_curation import CurationSettings

SETTINGS = CurationSettings()


def frame(*rows: dict[str, object]) -> pl.DataFrame:
    default = {
        "id": "i",
        "input_text": "write a mail",
        "structured_prompt": "Role: a",
        "quality_score": 0.9,
        "user_feedback": 1,
    }
    return pl.DataFrame([dict.fromkeys(SCHEMA) | default | row for row in rows], schema=SCHEMA)


def components(hashed: pl.DataFrame) -> npt.NDArray[np.int64]:
    return hashed["request_hash"].rank("dense").cast(pl.Int64).to_numpy()


def ids(found: pl.DataFrame) -> list[str]:
    return found["id"].to_list()


def test_a_correction_replaces_what_the_model_wrote() -> None:
    found = steps.with_target(
        frame({"id": "a"}, {"id": "b", "corrected_output": "**Role:** better"})
    )
    assert found["target"].to_list() == ["Role: a", "Role: better"]
    assert found["source"].to_list() == ["accepted", "corrected"]


@pytest.mark.parametrize("blank", [None, "", "  \n\t "])
def test_rows_without_text_teach_nothing(blank: str | None) -> None:
    found = steps.with_target(
        frame({"id": "a", "input_text": blank}, {"id": "b", "structured_prompt": blank})
    )
    assert ids(found) == []


def test_quality_and_feedback_are_the_seeds_thresholds() -> None:
    rows = steps.with_target(
        frame(
            {"id": "good", "quality_score": 0.7},
            {"id": "poor", "quality_score": 0.69},
            {"id": "unscored", "quality_score": None},
            {"id": "neutral", "user_feedback": 0},
            {"id": "disliked", "user_feedback": -1},
            {"id": "corrected", "quality_score": 0.1, "user_feedback": -1, "corrected_output": "x"},
        )
    )
    good = steps.filter_quality(SETTINGS)(rows)
    assert ids(good) == ["good", "neutral", "disliked", "corrected"]
    assert ids(steps.filter_feedback(SETTINGS)(good)) == ["good", "corrected"]


def test_the_maybe_band_needs_a_thumb_up() -> None:
    settings = CurationSettings(maybe_min_quality=0.5, min_feedback=0)
    rows = steps.with_target(
        frame(
            {"id": "maybe", "quality_score": 0.6},
            {"id": "maybe-neutral", "quality_score": 0.6, "user_feedback": 0},
            {"id": "low", "quality_score": 0.4},
            {"id": "good-neutral", "user_feedback": 0},
        )
    )
    found = steps.filter_feedback(settings)(steps.filter_quality(settings)(rows))
    assert ids(found) == ["maybe", "good-neutral"]


def test_exact_duplicates_go_whatever_their_case_and_spacing() -> None:
    rows = steps.with_hashes(
        steps.with_target(
            frame(
                {"id": "a"},
                {"id": "b", "input_text": " Write  a MAIL\n"},
                {"id": "c", "target_tool": "code"},
                {"id": "d", "structured_prompt": "Role: b"},
            )
        )
    )
    kept = steps.drop_exact_duplicates(rows)
    assert ids(kept) == ["a", "c", "d"]
    assert ids(steps.drop_known({rows["content_hash"][0]})(kept)) == ["c", "d"]


@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=20))
def test_equal_requests_never_stand_on_both_sides(texts: list[str]) -> None:
    rows = [
        {"id": f"{i}-{copy}", "input_text": text, "structured_prompt": f"answer {copy}"}
        for i, text in enumerate(texts)
        for copy in range(2)
    ]
    clean = [
        row | {"input_text": str(row["input_text"]).encode("utf-8", "replace").decode()}
        for row in rows
    ]
    hashed = steps.with_hashes(steps.with_target(frame(*clean)))
    found = with_split(hashed, SETTINGS, components=components(hashed)).frame
    sides = found.group_by("request_hash").agg(pl.col("split").n_unique())
    assert sides["split"].max() in (None, 1)


def test_the_split_has_its_share() -> None:
    rows = steps.with_hashes(
        steps.with_target(frame(*({"id": str(i), "input_text": f"ask {i}"} for i in range(2000))))
    )
    found = with_split(rows, SETTINGS, components=components(rows)).frame
    share = (found["split"] == "validation").mean()
    assert share == pytest.approx(SETTINGS.validation_share, abs=0.03)


def test_a_conversation_is_judged_by_people_and_corrected_word_by_word() -> None:
    chat = {"messages": '[{"role": "user", "content": "hi"}]', "quality_score": None}
    rows = steps.with_target(
        frame(
            chat | {"id": "liked"},
            chat | {"id": "disliked", "user_feedback": -1},
            chat | {"id": "corrected", "user_feedback": -1, "corrected_output": "# Hello\n**you**"},
        )
    )
    kept = steps.filter_feedback(SETTINGS)(steps.filter_quality(SETTINGS)(rows))
    assert ids(kept) == ["liked", "corrected"]
    assert kept["target"].to_list() == ["Role: a", "# Hello\n**you**"]
