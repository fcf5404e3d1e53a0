"""The engine's benchmark runs where only the numeric libraries are, as on GPU machines."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_layering import ROOT

ABSENT = ("ray", "prefect", "sqlmodel", "sqlalchemy", "pydantic", "fastapi", "rich", "polars")


@pytest.mark.slow
def test_it_measures_and_writes_its_file_without_ray_or_prefect(tmp_path: Path) -> None:
    out = tmp_path / "engine.json"
    program = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({ABSENT!r}))\n"
        "from benchmarks import bench_engine\n"
        "bench_engine.CONCURRENCY = (1,)\n"
        f"bench_engine.main(['--size', 'tiny', '--rounds', '1', '--out', {str(out)!r}])\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True)
    figures = json.loads(out.read_text())["figures"]
    assert {figure["peer"] for figure in figures} == {
        "transformers' continuous batching",
        "generate, one by one",
        "one adapter",
    }
    assert all(figure["value"] > 0 for figure in figures)
