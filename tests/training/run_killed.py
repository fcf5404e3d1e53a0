"""A run that is killed again and again: `run_killed.py FOLDER BASE SEED NUM_KILLS`.

Each attempt is a forked process that goes on from the last checkpoint; it writes a byte
after every step, and is killed when it has written a random number of them.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, os.getcwd())

import torch
from peft import PeftModel

from tests.training import test_loop
from training.checkpoint import load_checkpoint, save_checkpoint
from training.loop import StepReport
from training.lora import write_adapter

NUM_STEPS = 40
CHECKPOINT_EVERY = 3


def attempt(folder: Path, base: str, pipe: int) -> None:
    """Train from the last checkpoint to the end, and write the adapter."""
    torch.set_num_threads(1)
    dataset = torch.load(folder / "input.pt", weights_only=False)
    model = test_loop._model(base, dropout=0.1)
    settings = replace(test_loop.SETTINGS, num_steps=NUM_STEPS, schedule="cosine")
    loop = test_loop._loop(model, dataset, settings)
    checkpoint = folder / "checkpoint"
    if checkpoint.exists():
        loop.load_state_dict(load_checkpoint(checkpoint, model=model, run_digest="r"))

    def on_step(report: StepReport) -> None:
        assert isinstance(model, PeftModel)
        if report.step % CHECKPOINT_EVERY == 0:
            save_checkpoint(
                checkpoint, model=model, state=loop.state_dict(), base_id="b", run_digest="r"
            )
        os.write(pipe, b".")

    loop.run(on_step)
    write_adapter(model, folder / "adapter", base_id="b")
    torch.save(loop.losses, folder / "losses.pt")


def main(folder: Path, base: str, seed: int, num_kills: int) -> None:
    """Attempts until one ends by itself; prints how many were killed."""
    rng, killed = random.Random(seed), 0
    while not (folder / "losses.pt").exists():
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            attempt(folder, base, writing)
            os._exit(0)
        os.close(writing)
        limit = rng.randint(1, 6) if killed < num_kills else NUM_STEPS + 1
        steps = 0
        while steps < limit and os.read(reading, 1):
            steps += 1
        if steps == limit:
            os.kill(child, signal.SIGKILL)
            killed += 1
        os.close(reading)
        os.waitpid(child, 0)
    sys.stdout.write(str(killed))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
