"""Packed matrices compute what the plain ones do, and are used only where they pay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from serving.engine.packed_weights import MIN_NUMBERS, MIN_NUMBERS_FOR_ONE_ROW, pack

HIDDEN = 64
ROOM = 10**9


def layer_of(numbers: int, *, bias: bool = False) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(HIDDEN, numbers // HIDDEN, bias=bias)


@pytest.mark.parametrize("numbers", [MIN_NUMBERS, MIN_NUMBERS_FOR_ONE_ROW])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 3, 32, 70])
def test_a_packed_layer_computes_the_same(numbers: int, rows: int, bias: bool) -> None:
    layer = layer_of(numbers, bias=bias)
    hidden = torch.randn(1, rows, HIDDEN)
    with torch.inference_mode():
        expected = layer(hidden)
        assert pack(layer, room=ROOM) == layer.weight.nbytes
        found = layer(hidden)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_largest_come_first_while_there_is_room() -> None:
    small, large = layer_of(MIN_NUMBERS), layer_of(2 * MIN_NUMBERS)
    model = nn.ModuleList([small, large, layer_of(MIN_NUMBERS)])
    assert pack(model, room=large.weight.nbytes + small.weight.nbytes - 1) == large.weight.nbytes
    assert pack(model, room=0) == 0


def test_a_small_layer_stays_as_it_is() -> None:
    assert not pack(layer_of(MIN_NUMBERS // 2), room=ROOM)


def test_half_precision_stays_as_it_is() -> None:
    assert not pack(layer_of(MIN_NUMBERS).to(torch.bfloat16), room=ROOM)


def test_a_model_without_linear_layers_stays_as_it_is() -> None:
    assert not pack(nn.Identity())
