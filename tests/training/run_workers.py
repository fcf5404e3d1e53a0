"""Runs the loop of test_loop.py in several gloo processes: `run_workers.py FOLDER WORLD…`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, os.getcwd())

import torch
from torch import distributed, multiprocessing

from tests.training import test_loop
from training.parallel import ProcessGroup


def work(rank: int, folder: str, world: int) -> None:
    """One worker; the processes meet through a file in `folder`."""
    torch.set_num_threads(1)
    path = Path(folder)
    distributed.init_process_group(
        "gloo", init_method=f"file://{path}/meet-{world}", rank=rank, world_size=world
    )
    base, dataset = torch.load(path / "input.pt", weights_only=False)
    loop = test_loop._loop(test_loop._model(base), dataset, collective=ProcessGroup())
    loop.run(test_loop._ignore)
    torch.save((loop.losses, test_loop._weights(loop.model)), path / f"result-{world}-{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    # Forked, so that the workers share one import of torch and transformers.
    for size in map(int, sys.argv[2:]):
        multiprocessing.start_processes(
            work, args=(sys.argv[1], size), nprocs=size, start_method="fork"
        )
