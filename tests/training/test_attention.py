"""Attention within each sequence of a pack, against a mask written out."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from training import attention
from training.attention import Borders, attend
from training.block_attention import attend_by_blocks

CPU = torch.device("cpu")
DIM = 8


@settings(max_examples=25)
@given(
    lengths=st.lists(st.integers(1, 230), min_size=1, max_size=4),
    groups=st.integers(1, 3),
    num_key_heads=st.integers(1, 3),
    share_skipped=st.floats(0, 1),
    seed=st.integers(0, 9),
)
def test_a_pack_attends_as_its_sequences_and_so_do_its_gradients(
    lengths: list[int], groups: int, num_key_heads: int, share_skipped: float, seed: int
) -> None:
    torch.manual_seed(seed)
    skipped = tuple(int(share_skipped * (length - 1)) for length in lengths)
    # Doubles, in which sums of another order are the same to far more places than a fault.
    inputs = _inputs(sum(lengths), groups, num_key_heads, dtype=torch.float64)
    got, _ = attend(None, *inputs, None, borders=Borders(tuple(lengths), CPU, skipped), scaling=0.3)
    wanted = torch.cat(
        [torch.arange(length) >= without for length, without in zip(lengths, skipped, strict=True)]
    )
    expected = _by_mask(*inputs, lengths, scale=0.3) * wanted[:, None, None]
    upstream = torch.randn_like(expected) * wanted[:, None, None]
    torch.testing.assert_close(got, expected)
    for mine, theirs in zip(
        torch.autograd.grad(got, inputs, upstream),
        torch.autograd.grad(expected, inputs, upstream),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


def test_the_gradient_is_the_slope() -> None:
    torch.manual_seed(0)
    # Values may be of another width than keys.
    query, key, value = (
        torch.randn(heads, 11, width, dtype=torch.float64, requires_grad=True)
        for heads, width in ((4, 3), (2, 3), (2, 5))
    )

    def attended(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return attend_by_blocks(query, key, value, lengths=(4, 7), skipped=(0, 2), scale=0.5)

    assert torch.autograd.gradcheck(attended, (query, key, value))


@pytest.mark.parametrize("window", [None, 1, 5, 40])
@pytest.mark.parametrize("longest", [0, 1024])
def test_windows_and_long_sequences_go_sequence_by_sequence(
    window: int | None, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "LONGEST", longest)
    torch.manual_seed(0)
    lengths = (3, 30, 17)
    inputs = _inputs(sum(lengths), groups=2, num_key_heads=2)
    borders = Borders(lengths, CPU, skipped=(0, 0, 0))
    got, _ = attend(None, *inputs, None, borders=borders, sliding_window=window)
    expected = _by_mask(*inputs, lengths, scale=DIM**-0.5, window=window)
    torch.testing.assert_close(got, expected)


def _inputs(
    tokens: int, groups: int, num_key_heads: int, *, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """(1, heads, T, dim) as models give them: views of (1, T, heads, dim)."""
    query, key, value = (
        torch.randn(1, tokens, heads, DIM, dtype=dtype).transpose(1, 2).requires_grad_()
        for heads in (groups * num_key_heads, num_key_heads, num_key_heads)
    )
    return query, key, value


def _by_mask(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: Sequence[int],
    *,
    scale: float,
    window: int | None = None,
) -> Tensor:
    """(1, T, heads, dim) from the whole square of scores."""
    owners = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    distance = torch.arange(len(owners))[:, None] - torch.arange(len(owners))
    seen = (owners[:, None] == owners) & (distance >= 0) & (distance < (window or len(owners)))
    groups = query.shape[1] // key.shape[1]
    keys, values = (each.repeat_interleave(groups, dim=1) for each in (key, value))
    scores = (query @ keys.mT * scale).masked_fill(~seen, -torch.inf)
    return (scores.softmax(-1) @ values).transpose(1, 2)
