"""The page of benchmarks says what the result files say."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.render import PAGE, latest, render
from benchmarks.results import RESULTS, Figure, write_results


def test_the_page_is_the_one_that_the_results_give() -> None:
    assert PAGE.read_text("utf-8") == render(latest(RESULTS)), "run: python -m benchmarks.render"


def test_what_misses_its_goal_stands_first_and_the_newest_result_counts(tmp_path: Path) -> None:
    old = [Figure("speed", 1.0, "rows/s", goal="≥ 2", holds=False)]
    new = [
        Figure("speed", 1.5, "rows/s", peer="theirs", peer_value=3.0, goal="≥ 2", holds=False),
        Figure("size", 10_000.0, "bytes", goal="≤ 20000", holds=True),
    ]
    write_results("store", old, sizes={"rows": 1}, out=tmp_path / "store_cpu2_2026-01-01.json")
    write_results(
        "store", new, sizes={"rows": [1, 2], "a": {}}, out=tmp_path / "store_cpu2_2026-02-01.json"
    )
    page = render(latest(tmp_path))
    assert "2 figures have a goal, 1 miss it" in page
    assert "- speed: 1.5 rows/s, goal ≥ 2 ([store_cpu2](#store_cpu2))" in page
    assert "| speed | 1.5 rows/s | theirs | 3 | 0.50 | ≥ 2 **missed** |" in page
    assert "| size | 10,000 bytes |  |  |  | ≤ 20000 holds |" in page
    assert "rows 1/2." in page


def test_a_file_that_names_no_theme_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(ValueError, match=r"results\.json"):
        latest(tmp_path)
