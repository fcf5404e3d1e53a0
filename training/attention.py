"""Causal attention within each sequence of a pack, never across its borders.

One function for all devices, registered in transformers' AttentionInterface: on a GPU in
half precision one call of torch's variable-length flash attention, elsewhere torch's
fused attention sequence by sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from training.block_attention import LONGEST, attend_by_blocks
from training.errors import BaseModelError

ATTENTION = "kalimtak_packed"
"""The name by which transformers finds `attend`."""
_UNSUPPORTED = ("softcap", "s_aux", "position_bias")
_HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Borders:
    """Where the sequences of a pack begin and end."""

    lengths: tuple[int, ...]
    """Tokens of each sequence, in their order."""
    device: torch.device
    skipped: tuple[int, ...]
    """How many tokens at the start of each need no attention; they may get zeros."""

    @cached_property
    def cumulative(self) -> Tensor:
        """(sequences + 1,) int32: the first token of each, and the number of all tokens."""
        ends = torch.tensor([0, *self.lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        return ends.to(self.device)


def attend(
    module: Any,  # noqa: ARG001
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001
    *,
    borders: Borders,
    scaling: float | None = None,
    sliding_window: int | None = None,
    dropout: float = 0.0,
    **others: Any,
) -> tuple[Tensor, None]:
    """(1, T, heads, dim) from query (1, heads, T, dim), key and value of perhaps fewer heads.

    transformers' attention interface; `borders` comes through the model's keyword
    arguments. BaseModelError where the model's attention needs more than this.
    """
    for name in _UNSUPPORTED:
        if others.get(name) is not None:
            raise BaseModelError(f"the model's attention uses '{name}', which packing does not")
    if dropout:
        raise BaseModelError("the model drops attention scores out, which packing does not")
    if query.is_cuda and query.dtype in _HALF:
        return _varlen(query, key, value, borders, scaling, sliding_window), None
    if _is_short(query, borders, sliding_window):
        lengths, skipped = borders.lengths, borders.skipped
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        output = attend_by_blocks(
            query[0], key[0], value[0], lengths=lengths, skipped=skipped, scale=scale
        )
        return output[None], None
    return _one_by_one(query, key, value, borders.lengths, scaling, sliding_window), None


AttentionInterface.register(ATTENTION, attend)


def _is_short(query: Tensor, borders: Borders, window: int | None) -> bool:
    longest = max(borders.lengths)
    return (
        query.device.type == "cpu"
        and query.dtype not in _HALF
        and longest <= LONGEST
        and (window is None or longest <= window)
    )


def _varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    borders: Borders,
    scale: float | None,
    window: int | None,
) -> Tensor:
    longest = max(borders.lengths)
    output = varlen_attn(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        borders.cumulative,
        borders.cumulative,
        longest,
        longest,
        scale=scale,
        # Of `window` tokens, the token itself included, all but it lie to the left.
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(output, Tensor)
    return output[None]


def _one_by_one(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: Sequence[int],
    scale: float | None,
    window: int | None,
) -> Tensor:
    _, heads, tokens, dim = query.shape
    num_key_heads = key.shape[1]
    groups = heads // num_key_heads
    # Query heads that share a key head stand side by side, and read it without a copy.
    queries = torch.split(query.view(num_key_heads, groups, tokens, dim), list(lengths), dim=2)
    keys = torch.split(key[0], list(lengths), dim=1)
    values = torch.split(value[0], list(lengths), dim=1)
    outputs = []
    for length, q, k, v in zip(lengths, queries, keys, values, strict=True):
        mask = None if window is None or length <= window else _band(length, window, query)
        output = scaled_dot_product_attention(
            q,
            k[:, None].expand(-1, groups, -1, -1),
            v[:, None].expand(-1, groups, -1, -1),
            attn_mask=mask,
            is_causal=mask is None,
            scale=scale,
        )
        outputs.append(output.permute(2, 0, 1, 3).reshape(length, heads, -1))
    return torch.cat(outputs)[None]


def _band(length: int, window: int, like: Tensor) -> Tensor:
    """(length, length) bool: a token sees itself and the `window` - 1 before it."""
    positions = torch.arange(length, device=like.device)
    distance = positions[:, None] - positions
    return (distance >= 0) & (distance < window)
