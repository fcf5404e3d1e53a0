"""Large matrices, laid out as the processor multiplies them fastest.

For few rows at a time a product with a large matrix is bound by rearranging it, which torch
does anew for each. oneDNN keeps a rearranged copy, as torch's own compiler uses it: measured on
one core, 32 rows take a third less with 49,152 x 384 numbers and a sixth less with 1,280 x 384
and 3,072 x 1,024. A single row takes a quarter less with the plain matrix of 6,144 x 2,048 or
4,096 x 4,096, and a third less with the packed one of 49,152 x 384. The price is the memory of
the copies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from serving.engine.cache_budget import free_memory

ROOM_SHARE = 0.125
"""Of the memory that is free, for all copies together; several replicas share a machine."""
MIN_NUMBERS = 400_000
"""Below, a copy gains little and may cost: 768 x 256 numbers take as long either way."""
TALL = 32
"""Outputs for each input from which on a single row is multiplied by the packed matrix too."""
TYPICAL_ROWS = 32
_TOLERANCE = 1e-4

Product = Callable[[torch.Tensor], torch.Tensor]


def pack(model: nn.Module, *, room: int | None = None) -> int:
    """Have the linear layers of `model` multiply by packed copies, where that pays.

    The largest first, while the copies fit into `room` bytes; None: a share of what is free.
    Returns the bytes taken.
    """
    if room is None:
        room = int(free_memory() * ROOM_SHARE)
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    taken = 0
    for layer in sorted(layers, key=lambda layer: layer.weight.numel(), reverse=True):
        if _pays(layer.weight) and taken + layer.weight.nbytes <= room and _pack(layer):
            taken += layer.weight.nbytes
    return taken


def _pays(weight: torch.Tensor) -> bool:
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and weight.numel() >= MIN_NUMBERS
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        # Not promised by torch: another version may lack them.
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _pack(layer: nn.Linear) -> bool:
    """Whether it multiplies by a copy from now on; not where that computes something else."""
    kernels: Any = torch.ops.mkldnn
    bias, plain = layer.bias, layer.forward
    with torch.inference_mode():
        packed = kernels._reorder_linear_weight(layer.weight, TYPICAL_ROWS)

    def many(hidden: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = kernels._linear_pointwise(hidden, packed, bias, "none", [], "")
        return output

    def some(hidden: torch.Tensor) -> torch.Tensor:
        return plain(hidden) if hidden.shape[-2] == 1 else many(hidden)

    if not _agree(many, plain, layer.in_features):
        return False
    product = many if layer.out_features >= TALL * layer.in_features else some
    layer.forward = product  # type: ignore[method-assign, assignment]
    return True


@torch.inference_mode()
def _agree(packed: Product, plain: Product, in_features: int) -> bool:
    """Whether both compute the same for a few rows."""
    rows = torch.linspace(-1, 1, 2 * in_features).reshape(2, -1)
    expected = plain(rows)
    difference = (packed(rows) - expected).norm() / expected.norm()
    return bool(difference < _TOLERANCE)
