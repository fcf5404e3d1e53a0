"""Packed matrices compute what the plain ones do, and are used only where they pay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from serving.engine.packed_weights import MIN_NUMBERS, TALL, pack

HIDDEN = 64
ROOM = 10**9


def layer_of(numbers: int, *, hidden: int = HIDDEN, bias: bool = False) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(hidden, numbers // hidden, bias=bias)


@pytest.mark.parametrize("hidden_size", [HIDDEN, 10 * HIDDEN])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 3, 32, 70])
def test_a_packed_layer_computes_the_same(hidden_size: int, rows: int, bias: bool) -> None:
    layer = layer_of(MIN_NUMBERS, hidden=hidden_size, bias=bias)
    hidden = torch.randn(1, rows, hidden_size)
    with torch.inference_mode():
        expected = layer(hidden)
        assert pack(layer, room=ROOM) == layer.weight.nbytes
        found = layer(hidden)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("hidden_size", "read_plainly"), [(HIDDEN, []), (10 * HIDDEN, [1])])
def test_one_row_is_multiplied_by_the_plain_matrix_unless_that_is_tall(
    hidden_size: int, read_plainly: list[int]
) -> None:
    layer = layer_of(MIN_NUMBERS, hidden=hidden_size)
    assert (layer.out_features >= TALL * hidden_size) == (not read_plainly)
    plain, seen = layer.forward, []

    def counted(hidden: torch.Tensor) -> torch.Tensor:
        seen.append(hidden.shape[-2])
        return plain(hidden)

    layer.forward = counted  # type: ignore[method-assign]
    assert pack(layer, room=ROOM)
    seen.clear()
    with torch.inference_mode():
        for rows in (1, 2):
            layer(torch.randn(1, rows, hidden_size))
    assert seen == read_plainly


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
