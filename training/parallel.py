"""How data-parallel workers add up: alone, or through `torch.distributed`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch import distributed as dist


class Collective(Protocol):
    """The workers of one run; every call must be made by all of them in the same order."""

    rank: int
    world: int

    def add(self, buffer: Tensor) -> None:
        """Replaces `buffer` on every worker by the sum over all of them."""

    def share(self, tensors: Sequence[Tensor]) -> None:
        """Replaces `tensors` on every worker by those of rank 0."""


class Alone:
    """A run of a single worker: nothing to exchange."""

    rank = 0
    world = 1

    def add(self, buffer: Tensor) -> None:
        """The sum over one worker is what it has."""

    def share(self, tensors: Sequence[Tensor]) -> None:
        """Rank 0 is the only one."""


class ProcessGroup:
    """The workers of the initialised default process group (gloo or nccl)."""

    def __init__(self) -> None:
        self.rank = dist.get_rank()
        self.world = dist.get_world_size()

    def add(self, buffer: Tensor) -> None:
        """One all-reduce."""
        dist.all_reduce(buffer, op=dist.ReduceOp.SUM)

    def share(self, tensors: Sequence[Tensor]) -> None:
        """One broadcast of all the tensors, flattened."""
        if not tensors:
            return
        with torch.no_grad():
            flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
            dist.broadcast(flat, src=0)
            _unflatten(flat, tensors)


def add_gradients(collective: Collective, parameters: Sequence[Tensor], extra: Tensor) -> Tensor:
    """Sums the parameters' gradients and `extra`, a 1-D tensor, over all workers at once.

    Returns the summed `extra`. A worker that had nothing to do contributes zeros.
    """
    if collective.world == 1:
        return extra
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([*(gradient.flatten() for gradient in gradients), extra])
    collective.add(flat)
    _unflatten(flat, gradients)
    return flat[flat.numel() - extra.numel() :].clone()


def _unflatten(flat: Tensor, targets: Sequence[Tensor]) -> None:
    offset = 0
    for target in targets:
        target.copy_(flat[offset : offset + target.numel()].view_as(target))
        offset += target.numel()
