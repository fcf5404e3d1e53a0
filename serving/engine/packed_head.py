"""The vocabulary's matrix, laid out as the processor multiplies it fastest.

For few rows at a time a product with so large a matrix is bound by rearranging it, which torch
does anew for each. oneDNN keeps a rearranged copy, as torch's own compiler uses it: measured on
two cores, 49,152 tokens by 384, it takes half the time for 8 rows and two thirds for 32. The
price is the matrix's memory once more.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

MIN_NUMBERS = 4_000_000
"""Below, the matrix stays in the processor's caches and is not worth a copy."""
TYPICAL_ROWS = 32
_TOLERANCE = 1e-4


def pack(head: nn.Module | None) -> bool:
    """Have `head` multiply by a packed copy from now on, where that pays; whether it does."""
    if not isinstance(head, nn.Linear) or not _pays(head.weight):
        return False
    kernels: Any = torch.ops.mkldnn
    with torch.inference_mode():
        packed = kernels._reorder_linear_weight(head.weight, TYPICAL_ROWS)

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = kernels._linear_pointwise(hidden, packed, head.bias, "none", [], "")
        return output

    if not _agree(forward, head):
        return False
    head.forward = forward  # type: ignore[method-assign, assignment]
    return True


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


@torch.inference_mode()
def _agree(forward: Any, head: nn.Linear) -> bool:
    """Whether both compute the same for a few rows."""
    rows = torch.linspace(-1, 1, 2 * head.in_features).reshape(2, -1)
    expected = nn.functional.linear(rows, head.weight, head.bias)
    difference = (forward(rows) - expected).norm() / expected.norm()
    return bool(difference < _TOLERANCE)
