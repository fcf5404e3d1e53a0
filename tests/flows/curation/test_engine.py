"""Row steps in other processes give what they give here, and no process outlives its parent."""

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from benchmarks.curation_data import Writer
from flows.curation.engine import LocalEngine
from flows.curation.frames import SCHEMA
from flows.curation.rows import RowSteps
from registry.settings_curation import CurationSettings

NOW = datetime(2026, 3, 1, tzinfo=UTC)
STEPS = RowSteps(CurationSettings(), NOW)


def frames(number: int, rows: int) -> list[pl.DataFrame]:
    write = Writer(2)
    found = []
    for page in range(number):
        about = [
            {
                "id": f"{page}-{row}",
                "user_id": f"u{row}",
                "input_text": write.prose(),
                "structured_prompt": f"{write.prose()} amy{row}@example.com",
                "quality_score": 0.6 + 0.4 * (row % 2),
                "user_feedback": 1,
                "feedback_at": NOW,
            }
            for row in range(rows)
        ]
        frame = pl.DataFrame(about, schema=SCHEMA)
        found.append(frame.with_columns(judgement=pl.lit(None, pl.String)))
    return found


def test_pages_of_other_processes_are_those_of_this_one_in_their_order() -> None:
    given = frames(4, 30)
    with LocalEngine(num_workers=2) as engine:
        there = list(engine.pages(STEPS, given))
        again = list(engine.pages(STEPS, given[:1]))
    here = list(LocalEngine().pages(STEPS, given))
    assert [page.frame.height for page in here] == [15] * 4
    for one, other in zip([*here, here[0]], [*there, *again], strict=True):
        assert one.frame.equals(other.frame)
        assert (one.held, one.tally, one.seen) == (other.held, other.tally, other.seen)


SCRIPT = """
import time
from tests.flows.curation.test_engine import STEPS, frames
from flows.curation.engine import LocalEngine

if __name__ == "__main__":
    with LocalEngine(num_workers=1) as engine:
        list(engine.pages(STEPS, frames(2, 2)))
        print("ready", flush=True)
        time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads the children from /proc")
def test_a_worker_ends_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(SCRIPT)
    with subprocess.Popen(
        [sys.executable, script],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        try:
            assert parent.stdout is not None
            assert parent.stdout.readline() == "ready\n"
            children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
            assert children
        finally:
            os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while any(_is_alive(child) for child in children):
        assert time.monotonic() < deadline, children
        time.sleep(0.05)


def _is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
