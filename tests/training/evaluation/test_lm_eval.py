"""The documented command of lm-evaluation-harness, on the smallest of tasks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from training.base import load_base, resolve_base
from training.lora import new_adapter, write_adapter


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_lm_evaluation_harness_takes_the_base_with_an_adapter(tmp_path: Path) -> None:
    model = new_adapter(
        load_base("embedded"), rank=2, alpha=4, dropout=0, target_modules="all-linear", seed=0
    )
    write_adapter(model, tmp_path / "adapter", base_id="embedded")
    command = [sys.executable, "-m", "lm_eval", "--model", "hf", "--tasks", "kalimtak_tools"]
    command += ["--model_args", f"pretrained={resolve_base('embedded')},peft={tmp_path}/adapter"]
    command += ["--include_path", "examples/lm_eval", "--device", "cpu", "--batch_size", "1"]
    command += ["--output_path", str(tmp_path / "results")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (written,) = (tmp_path / "results").rglob("results_*.json")
    accuracy = json.loads(written.read_text())["results"]["kalimtak_tools"]["acc,none"]
    assert accuracy >= 0.5
