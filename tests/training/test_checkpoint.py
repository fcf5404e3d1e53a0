"""Runs that are killed, and disks that are full."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import run

import pytest
import torch

from tests.training import test_loop
from training.checkpoint import load_checkpoint, save_checkpoint
from training.encoding import Encoded
from training.errors import CheckpointError


@pytest.mark.slow
def test_a_run_killed_ten_times_ends_with_the_same_adapter_bit_for_bit(
    tiny_base: str, encoded: tuple[Encoded, ...], tmp_path: Path
) -> None:
    found = {}
    for name, num_kills in (("undisturbed", 0), ("killed", 10)):
        folder = tmp_path / name
        folder.mkdir()
        torch.save(encoded, folder / "input.pt")
        script = Path(__file__).with_name("run_killed.py")
        command = [sys.executable, str(script), str(folder), tiny_base, "1", str(num_kills)]
        done = run(command, check=False, capture_output=True, text=True, cwd=Path.cwd())
        assert (done.returncode, done.stdout) == (0, str(num_kills)), done.stderr
        weights = (folder / "adapter" / "adapter_model.safetensors").read_bytes()
        found[name] = (weights, torch.load(folder / "losses.pt"))
    assert found["killed"] == found["undisturbed"]


def test_a_disk_that_is_full_leaves_the_last_checkpoint_and_says_so(
    tiny_base: str, encoded: tuple[Encoded, ...], tmp_path: Path
) -> None:
    model = test_loop._model(tiny_base)
    state = test_loop._loop(model, encoded).state_dict()
    folder = tmp_path / "checkpoint"
    save_checkpoint(folder, model=model, state=state, base_id="b", run_digest="r")
    with (
        _files_of_at_most(1000),
        pytest.raises(CheckpointError, match=r"cannot be written: .*Is the disk full"),
    ):
        save_checkpoint(folder, model=model, state=state, base_id="b", run_digest="r")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
    assert load_checkpoint(folder, model=model, run_digest="r")["step"] == 0


@contextmanager
def _files_of_at_most(num_bytes: int) -> Iterator[None]:
    """Writing beyond that fails, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
