"""A training whose process is killed, as by a power cut or the kernel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.context import Context
from flows.retrain import run_retrain
from registry import runs
from registry.errors import ConflictError
from tests.flows.conftest import FakeClock
from tests.support.fake_learner import FakeLearner
from tests.support.usage import log_liked

TRAIN_FOR_EVER = """
import time
from pathlib import Path
from flows.context import open_context
from flows.retrain import run_retrain
from registry.settings import load_settings
from tests.support.fake_learner import FakeLearner

def hang():
    Path("training").touch()
    time.sleep(600)

settings = load_settings({"KALIMTAK_TRAINING__MIN_SAMPLES": "20"})
run_retrain(open_context(settings), FakeLearner([], during_training=hang), workload="default")
"""
PROJECT = Path(__file__).parents[2]


def test_it_is_marked_failed_and_the_next_training_goes_ahead(
    context: Context, clock: FakeClock, tmp_path: Path
) -> None:
    log_liked(context, 60, at=clock())
    process = subprocess.Popen(
        [sys.executable, "-c", TRAIN_FOR_EVER],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    deadline = time.monotonic() + 100
    while not (tmp_path / "training").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with context.database.read() as session:
        dead = runs.running(session, workload="default")
    assert dead is not None
    clock.now = dead.heartbeat_at
    with pytest.raises(ConflictError, match="already training"):
        run_retrain(context, FakeLearner([]), workload="default")
    clock.move(seconds=context.settings.training.stale_after_s + 1)
    assert run_retrain(context, FakeLearner([0.8]), workload="default").status == "succeeded"
    with context.database.read() as session:
        reaped = runs.get(session, dead.id)
    assert (reaped.status, reaped.reason) == (
        "failed",
        "its process died: no heartbeat for 181 s",
    )
