"""Runs the loop of test_loop.py in gloo processes: `run_workers.py FOLDER [sharded] WORLD…`."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, os.getcwd())

import torch
from torch import distributed, multiprocessing

from tests.training import test_loop
from training.parallel import ProcessGroup
from training.sharding import shard_base


def work(rank: int, folder: str, world: int, sharded: bool) -> None:
    """One worker; the processes meet through a file in `folder`."""
    torch.set_num_threads(1)
    path = Path(folder)
    distributed.init_process_group(
        "gloo", init_method=f"file://{path}/meet-{world}", rank=rank, world_size=world
    )
    base, dataset = torch.load(path / "input.pt", weights_only=False)
    model = test_loop._model(base)
    if sharded:
        shard_base(model, device=torch.device("cpu"))
        shares = [p.to_local().numel() for p in model.parameters() if hasattr(p, "to_local")]
        assert 0 < sum(shares) < 0.7 * sum(p.numel() for p in model.parameters())
    settings = replace(test_loop.SETTINGS, equal_passes=sharded)
    loop = test_loop._loop(model, dataset, settings, collective=ProcessGroup())
    loop.run(test_loop._ignore)
    torch.save((loop.losses, test_loop._weights(loop.model)), path / f"result-{world}-{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    # Forked, so that the workers share one import of torch and transformers.
    sizes = [word for word in sys.argv[2:] if word != "sharded"]
    for size in map(int, sizes):
        multiprocessing.start_processes(
            work, args=(sys.argv[1], size, "sharded" in sys.argv), nprocs=size, start_method="fork"
        )
