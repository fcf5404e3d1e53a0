"""Causal attention of short sequences on a CPU, block by block of queries.

torch's fused attention is made for long sequences: where they have some hundred tokens, its
way back runs at a third of the speed of plain products. Here each block of queries meets
all keys before it in one product, and the probabilities are kept for the way back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LONGEST = 1024
"""Tokens of a sequence: what is kept grows with their square."""
_QUERIES = 96
"""Of a block, at most. Of 64, 96, 128, 192 and 256 the fastest from 130 to 500 tokens."""


def attend_by_blocks(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    lengths: Sequence[int],
    skipped: Sequence[int],
    scale: float,
) -> Tensor:
    """(T, heads, dim) from query (heads, T, dim), key and value of perhaps fewer heads.

    The first `skipped` tokens of each sequence ask for nothing, and get zeros.
    """
    blocks = tuple(_blocks(lengths, skipped))
    function: Any = _BlockAttention.apply
    output: Tensor = function(query, key, value, blocks, scale)
    return output


def _blocks(lengths: Sequence[int], skipped: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Of each block the first key, the first query, and the end of both."""
    start = 0
    for length, without in zip(lengths, skipped, strict=True):
        number = -(-(length - without) // _QUERIES)
        ends = [without + (length - without) * place // number for place in range(1, number + 1)]
        for first, end in zip([without, *ends], ends, strict=False):
            yield start, start + first, start + end
        start += length


class _BlockAttention(torch.autograd.Function):
    """Query heads that share a key head are rows of one product."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        blocks: Sequence[tuple[int, int, int]],
        scale: float,
    ) -> Tensor:
        keys = key * scale
        queries = query.view(len(keys), -1, *query.shape[1:])
        output = query.new_zeros(query.shape[1], len(query), value.shape[2])
        outputs = _heads_first(output, len(keys))
        kept = []
        for start, first, end in blocks:
            asking = queries[:, :, first:end].flatten(1, 2)
            scores = torch.bmm(asking, keys[:, start:end].mT)
            seen = _by_group(scores, end - first)
            seen[..., first - start :] += _not_yet(end - first, scores.dtype)
            shares = scores.softmax(-1)
            found = torch.bmm(shares, value[:, start:end])
            outputs[:, :, first:end] = _by_group(found, end - first)
            kept += [asking, shares]
        ctx.save_for_backward(keys, value, *kept)
        ctx.blocks, ctx.scale = blocks, scale
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        keys, value, *kept = ctx.saved_tensors
        grad_query = grad.new_zeros(*grad.shape[:2], keys.shape[2])
        grads, grad_queries = (_heads_first(each, len(keys)) for each in (grad, grad_query))
        grad_key, grad_value = torch.zeros_like(keys), torch.zeros_like(value)
        for (start, first, end), asking, shares in zip(
            ctx.blocks, kept[::2], kept[1::2], strict=True
        ):
            wanted = grads[:, :, first:end].flatten(1, 2)
            grad_value[:, start:end].baddbmm_(shares.mT, wanted)
            change = torch.bmm(wanted, value[:, start:end].mT)
            change = torch._softmax_backward_data(change, shares, -1, shares.dtype)
            found = torch.bmm(change, keys[:, start:end])
            grad_queries[:, :, first:end] = _by_group(found, end - first)
            grad_key[:, start:end].baddbmm_(change.mT, asking)
        return grad_query.transpose(0, 1), grad_key.mul_(ctx.scale), grad_value, None, None


def _heads_first(packed: Tensor, num_key_heads: int) -> Tensor:
    """(key heads, groups, T, dim), a view of (T, heads, dim)."""
    return packed.transpose(0, 1).view(num_key_heads, -1, len(packed), packed.shape[2])


def _by_group(rows: Tensor, number: int) -> Tensor:
    """(key heads, groups, number, …) from (key heads, groups · number, …)."""
    return rows.view(len(rows), -1, number, rows.shape[-1])


@cache
def _not_yet(number: int, dtype: torch.dtype) -> Tensor:
    """(number, number): what is added to scores, so that no query sees a later key."""
    return torch.full((number, number), -torch.inf, dtype=dtype, device="cpu").triu_(1)
