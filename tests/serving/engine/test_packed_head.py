"""The packed head computes what the plain one does, and is used only where it pays."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from serving.engine.packed_head import MIN_NUMBERS, pack


def head_of(size: int, hidden: int = 64, *, bias: bool = False) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(hidden, size // hidden, bias=bias)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 3, 32, 70])
def test_a_packed_head_computes_the_same(rows: int, bias: bool) -> None:
    head = head_of(MIN_NUMBERS, bias=bias)
    hidden = torch.randn(1, rows, 64)
    with torch.inference_mode():
        expected = head(hidden)
        assert pack(head)
        found = head(hidden)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_small_head_stays_as_it_is() -> None:
    assert not pack(head_of(MIN_NUMBERS // 2))


def test_half_precision_stays_as_it_is() -> None:
    assert not pack(head_of(MIN_NUMBERS).to(torch.bfloat16))


def test_what_is_no_linear_layer_stays_as_it_is() -> None:
    assert not pack(None)
    assert not pack(nn.Identity())
