"""Keys and values of all running rows, within a budget of tokens.

Rows of about the same capacity share a slab, one tensor per layer, and live rows stand at its
front without gaps, so that attention reads them in place. Beyond a row's length everything
is zero: what a row has left behind, perhaps not even numbers, never reaches the next one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

SMALLEST_CAPACITY = 256
"""Tokens; capacities are this times a power of two, so that few slabs serve all lengths."""
FIRST_ROWS = 4
"""Rows that a new slab has room for, where the budget allows."""


@dataclass(frozen=True)
class LayerShape:
    """What one layer keeps of a token."""

    heads: int
    key_dim: int
    value_dim: int

    @property
    def size(self) -> int:
        """Numbers per token."""
        return self.heads * (self.key_dim + self.value_dim)


@dataclass(eq=False)
class CacheRow:
    """A row's place; `slot` changes when rows before it leave."""

    slab: Slab
    slot: int
    length: int = 0
    """Tokens whose keys and values are written."""


class Slab:
    """Rows of one capacity: per layer keys and values [room, heads, capacity, dim]."""

    def __init__(
        self,
        capacity: int,
        shapes: Sequence[LayerShape],
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.capacity = capacity
        self.rows: list[CacheRow] = []
        self.room = 0
        self.keys = [
            torch.zeros((0, shape.heads, capacity, shape.key_dim), device=device, dtype=dtype)
            for shape in shapes
        ]
        self.values = [
            torch.zeros((0, shape.heads, capacity, shape.value_dim), device=device, dtype=dtype)
            for shape in shapes
        ]

    @property
    def tokens(self) -> int:
        """Tokens that it holds room for, used or not."""
        return self.room * self.capacity

    def resize(self, room: int) -> None:
        """Hold room for this many rows, not fewer than are live.

        Where memory runs out on the way, there is room for what every layer has room for.
        """
        self.room = min(self.room, room)
        for tensors in (self.keys, self.values):
            for index, old in enumerate(tensors):
                # Layer by layer: at no time are there two whole copies.
                new = old.new_zeros((room, *old.shape[1:]))
                new[: len(self.rows)] = old[: len(self.rows)]
                tensors[index] = new
        self.room = room

    def add(self) -> CacheRow:
        """A new row at the end."""
        row = CacheRow(self, len(self.rows))
        self.rows.append(row)
        return row

    def remove(self, row: CacheRow) -> None:
        """Let a row go; the last one moves to its place."""
        last = self.rows.pop()
        longest = max(row.length, last.length)
        for tensor in (*self.keys, *self.values):
            if last is not row:
                tensor[row.slot, :, :longest] = tensor[last.slot, :, :longest]
            tensor[last.slot, :, :longest] = 0
        if last is not row:
            last.slot = row.slot
            self.rows[row.slot] = last


class KvCache:
    """All slabs, and the budget that they share."""

    def __init__(
        self,
        shapes: Sequence[LayerShape],
        *,
        budget: int,
        context: int,
        max_rows: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """`budget`, all slabs together, and `context`, the longest row, are in tokens."""
        self._shapes = shapes
        self._budget = budget
        self._max_rows = max_rows
        self._device = device
        self._dtype = dtype
        self._slabs: dict[int, Slab] = {}
        self.longest_row = min(context, budget)
        """Tokens that a row may have when it is alone."""

    @property
    def tokens(self) -> int:
        """Tokens that room is held for."""
        return sum(slab.tokens for slab in self._slabs.values())

    def slabs(self) -> Iterator[Slab]:
        """Those with live rows."""
        return (slab for slab in self._slabs.values() if slab.rows)

    def take(self, tokens: int) -> CacheRow | None:
        """A row for up to `tokens` tokens; None while there is no room."""
        capacity = self._capacity(tokens)
        slab = self._slabs.get(capacity) or Slab(
            capacity, self._shapes, device=self._device, dtype=self._dtype
        )
        if len(slab.rows) == slab.room and not (self._grow(slab) or self._squeeze(slab)):
            return None
        self._slabs[capacity] = slab
        return slab.add()

    def release(self, row: CacheRow) -> None:
        """Give a row's place back."""
        row.slab.remove(row)

    def _capacity(self, tokens: int) -> int:
        capacity = SMALLEST_CAPACITY
        while capacity < tokens:
            capacity *= 2
        return min(capacity, self.longest_row)

    def _grow(self, slab: Slab) -> bool:
        free = (self._budget - self.tokens) // slab.capacity
        wanted = min(max(FIRST_ROWS, slab.room), self._max_rows - slab.room)
        more = min(free, wanted)
        if more < 1:
            return False
        slab.resize(slab.room + more)
        return True

    def _squeeze(self, slab: Slab) -> bool:
        """Take room that no row uses from the other slabs; whether that was enough."""
        unused = sum(
            (other.room - len(other.rows)) * other.capacity for other in self._slabs.values()
        )
        if self._budget - self.tokens + unused < slab.capacity:
            return False
        for capacity, other in list(self._slabs.items()):
            if not other.rows:
                del self._slabs[capacity]
            elif other.room > len(other.rows):
                other.resize(len(other.rows))
        return self._grow(slab)
