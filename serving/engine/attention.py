"""One step of many rows in one packed forward pass of a transformers model.

The tokens of all rows stand one after the other, [1, tokens]. The model computes everything
but attention on that; attention is `attend`, which writes keys and values where the cache
keeps them and reads them there. Rows that get one token are attended together, slab by slab;
longer pieces of prompts one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from serving.engine.cache import CacheRow, LayerShape, Slab
from serving.errors import EngineError

ATTENTION = "kalimtak"
"""The name by which transformers finds `attend`."""
_GPU_ALIGNMENT = 16
"""GPU kernels want masks whose rows start at multiples of this."""
_UNSUPPORTED = ("softcap", "s_aux", "position_bias")


class Attending(Protocol):
    """What computes the attention of a forward pass."""

    def layer(
        self,
        index: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        scale: float | None,
        window: int | None,
    ) -> torch.Tensor:
        """[tokens, heads, dim] from the same, with `key` and `value` of perhaps fewer heads."""
        ...


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    step: Attending,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface; `step` comes through the model's keyword arguments."""
    for name in _UNSUPPORTED:
        if others.get(name) is not None:
            raise EngineError(f"the model's attention uses '{name}', which this engine does not")
    del attention_mask
    output = step.layer(
        module.layer_idx,
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        scale=scaling,
        window=sliding_window,
    )
    return output[None], None


AttentionInterface.register(ATTENTION, attend)


@dataclass
class ShapeProbe:
    """Attends without a cache, and notes what each layer would keep."""

    shapes: dict[int, LayerShape] = field(default_factory=dict)

    def layer(
        self,
        index: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        scale: float | None,
        window: int | None,
    ) -> torch.Tensor:
        """Causal attention over the tokens of this pass."""
        self.shapes[index] = LayerShape(key.shape[1], key.shape[2], value.shape[2])
        positions = torch.arange(query.shape[0], device=query.device)
        mask = _causal(positions, positions, window).to(query.dtype)
        return _prompt(query, key.transpose(0, 1), value.transpose(0, 1), mask, scale)


@dataclass(frozen=True)
class Feed:
    """The next tokens of one row."""

    row: CacheRow
    tokens: Sequence[int]


class Step:
    """The forward pass of one step; made anew for each."""

    def __init__(self, feeds: Sequence[Feed], device: torch.device) -> None:
        by_slab: dict[int, list[int]] = {}
        for index, feed in enumerate(feeds):
            by_slab.setdefault(id(feed.row.slab), []).append(index)
        self.order: list[int] = []
        """`feeds` in the order in which their tokens stand in the pass."""
        self._parts: list[_Part] = []
        self.num_tokens = 0
        for members in by_slab.values():
            # Rows that get one token come first, in the order of their slots.
            members.sort(key=lambda index: (len(feeds[index].tokens) > 1, feeds[index].row.slot))
            part = _Part([feeds[index] for index in members], self.num_tokens, device)
            self._parts.append(part)
            self.order += members
            self.num_tokens += part.num_tokens
        ordered = [feeds[index] for index in self.order]
        self.input_ids = torch.tensor(
            [[token for feed in ordered for token in feed.tokens]], device=device
        )
        self.position_ids = torch.cat([part.positions for part in self._parts])[None]

    def layer(
        self,
        index: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        scale: float | None,
        window: int | None,
    ) -> torch.Tensor:
        """Write this pass's keys and values; attend to all of each row's."""
        outputs = [
            output
            for part in self._parts
            for output in part.layer(index, query, key, value, scale, window)
        ]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


class _Part:
    """The rows of one slab in a step."""

    def __init__(self, feeds: Sequence[Feed], start: int, device: torch.device) -> None:
        self._slab: Slab = feeds[0].row.slab
        self._device = device
        self._singles = [feed.row for feed in feeds if len(feed.tokens) == 1]
        self._prompts: list[_Piece] = []
        slots: list[int] = []
        positions: list[int] = []
        for feed in feeds:
            count = len(feed.tokens)
            if count > 1:
                self._prompts.append(_Piece(feed.row, start + len(slots), count))
            slots += [feed.row.slot] * count
            positions += range(feed.row.length, feed.row.length + count)
        self.num_tokens = len(slots)
        self._tokens = slice(start, start + len(slots))
        self._slots = torch.tensor(slots, device=device)
        self.positions = torch.tensor(positions, device=device)
        self._masks: dict[int | None, torch.Tensor | None] = {}
        self._lengths = self._attended_lengths()

    def layer(
        self,
        index: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float | None,
        window: int | None,
    ) -> list[torch.Tensor]:
        keys, values = self._slab.keys[index], self._slab.values[index]
        keys[self._slots, :, self.positions] = key[self._tokens]
        values[self._slots, :, self.positions] = value[self._tokens]
        outputs = []
        if self._singles:
            first = self._tokens.start
            outputs.append(
                self._attend_singles(
                    query[first : first + len(self._singles)], keys, values, scale, window
                )
            )
        for piece in self._prompts:
            end = piece.row.length + piece.count
            outputs.append(
                _prompt(
                    query[piece.start : piece.start + piece.count],
                    keys[piece.row.slot, :, :end],
                    values[piece.row.slot, :, :end],
                    piece.mask(window, query),
                    scale,
                )
            )
        return outputs

    def _attended_lengths(self) -> list[int]:
        """Of every live row of the slab, how many tokens its single token attends to."""
        # Rows without one attend to their first token, to no effect.
        lengths = [1] * len(self._slab.rows)
        for row in self._singles:
            lengths[row.slot] = row.length + 1
        return lengths

    def _attend_singles(
        self,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        scale: float | None,
        window: int | None,
    ) -> torch.Tensor:
        """[singles, heads, dim]. The query heads of one key head are taken for one sequence."""
        singles, heads, dim = query.shape
        rows, longest = len(self._lengths), self._longest()
        slots = self._slots[:singles]
        if singles < rows:
            query = query.new_zeros((rows, heads, dim)).index_copy_(0, slots, query)
        output = scaled_dot_product_attention(
            query.reshape(rows, keys.shape[1], -1, dim),
            keys[:rows, :, :longest],
            values[:rows, :, :longest],
            attn_mask=self._mask(window, query),
            scale=scale,
        ).reshape(rows, heads, -1)
        return output[slots] if singles < rows else output

    def _longest(self) -> int:
        longest = max(self._lengths)
        if self._device.type == "cpu":
            return longest
        return min(-(-longest // _GPU_ALIGNMENT) * _GPU_ALIGNMENT, self._slab.capacity)

    def _mask(self, window: int | None, query: torch.Tensor) -> torch.Tensor | None:
        """[rows, 1, 1, longest], the same for all layers with one window; None: all attend."""
        if window not in self._masks:
            longest = self._longest()
            if min(self._lengths) == longest and (window is None or longest <= window):
                self._masks[window] = None
            else:
                last = torch.tensor(self._lengths, device=self._device)[:, None] - 1
                keys = torch.arange(longest, device=self._device)
                mask = _causal(last, keys, window).to(query.dtype)
                self._masks[window] = mask[:, None, :]
        return self._masks[window]


class _Piece:
    """Several tokens of one prompt; `start` is their place in the pass."""

    def __init__(self, row: CacheRow, start: int, count: int) -> None:
        self.row = row
        self.start = start
        self.count = count
        self._masks: dict[int | None, torch.Tensor | None] = {}

    def mask(self, window: int | None, query: torch.Tensor) -> torch.Tensor | None:
        """[count, length + count]; None: plainly causal, from the first token on."""
        end = self.row.length + self.count
        if self.row.length == 0 and (window is None or end <= window):
            return None
        if window not in self._masks:
            keys = torch.arange(end, device=query.device)
            mask = _causal(keys[self.row.length :], keys, window).to(query.dtype)
            self._masks[window] = mask
        return self._masks[window]


def _causal(queries: torch.Tensor, keys: torch.Tensor, window: int | None) -> torch.Tensor:
    """What is added to scores: 0 where a query attends to a key, else -inf."""
    distance = queries[..., None] - keys
    seen = distance >= 0
    if window is not None:
        seen &= distance < window
    return torch.zeros(seen.shape, device=keys.device).masked_fill_(~seen, -torch.inf)


def _prompt(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float | None,
) -> torch.Tensor:
    """[tokens, heads, dim] of one row, from keys and values [key heads, length, dim]."""
    tokens, heads, dim = query.shape
    groups = heads // keys.shape[0]
    # Expanded, not copied: every query head of a group reads the same keys.
    output = scaled_dot_product_attention(
        query.reshape(tokens, -1, groups, dim).permute(1, 2, 0, 3),
        keys[:, None].expand(-1, groups, -1, -1),
        values[:, None].expand(-1, groups, -1, -1),
        attn_mask=mask,
        is_causal=mask is None,
        scale=scale,
    )
    return output.permute(2, 0, 1, 3).reshape(tokens, heads, -1)
