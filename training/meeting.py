"""[ray] How the workers of a run meet: through a store on the address of rank 0's node.

Ray Train's own way does the same, but its store listens on all interfaces, and answers
whoever asks.
"""

from __future__ import annotations

import socket

import ray.util
from ray.train import get_context
from ray.train.collective import broadcast_from_rank_zero
from ray.train.torch import get_device
from torch import distributed


def meet() -> None:
    """Initialise the default process group of a run; all its workers must call this.

    The group lasts as long as the worker's process, which Ray ends with the run.
    """
    context = get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    listening: socket.socket | None = None
    if rank == 0:
        node = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        family = socket.AF_INET6 if ":" in node else socket.AF_INET
        listening = socket.create_server((node, 0), family=family)
    address = broadcast_from_rank_zero(listening.getsockname() if listening else None)
    assert address is not None
    store = distributed.TCPStore(  # type: ignore[attr-defined]
        address[0],
        address[1],
        world,
        is_master=rank == 0,
        master_listen_fd=listening.detach() if listening else None,
    )
    backend = "nccl" if get_device().type == "cuda" else "gloo"
    distributed.init_process_group(backend, store=store, rank=rank, world_size=world)
