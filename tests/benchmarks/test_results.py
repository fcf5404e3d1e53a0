"""Result files: the agreed form, with ratios and goals worked out."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.results import Figure, at_least, within, write_results


def test_a_result_file_has_the_agreed_form(tmp_path: Path) -> None:
    figures = [
        Figure("speed", 6.0, "tokens/s", peer="plain", peer_value=3.0),
        at_least("slots", 0.94, "share", 0.95),
        within("good", 0.3, "share", 0.15, 0.45),
    ]
    now = datetime(2026, 11, 20, 12, tzinfo=UTC)
    path = write_results("x", figures, sizes={"n": 2}, out=tmp_path / "r" / "x.json", now=now)
    content = json.loads(path.read_text("utf-8"))
    assert set(content) == {"command", "date", "machine", "versions", "sizes", "figures"}
    assert content["date"] == "2026-11-20T12:00:00+00:00"
    assert content["sizes"] == {"n": 2}
    assert [figure["ratio"] for figure in content["figures"]] == [2.0, None, None]
    assert [figure["holds"] for figure in content["figures"]] == [None, False, True]
    assert set(content["figures"][0]) == {
        "name", "value", "unit", "peer", "peer_value", "ratio", "goal", "holds",
    }  # fmt: skip
