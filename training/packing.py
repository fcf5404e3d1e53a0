"""Packs sequences one after the other, without padding, up to a budget of tokens.

What is packed with what never changes a loss or a gradient, only how long a step takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.attention import Borders
from training.encoding import Encoded


@dataclass(frozen=True, kw_only=True)
class Pack:
    """S sequences of T tokens in all, and the N positions whose next token is learned."""

    input_ids: Tensor
    """(1, T) int64."""
    position_ids: Tensor
    """(1, T) int64, from 0 in each sequence."""
    borders: Borders
    ends: Borders
    """The same, with attention for nothing before the first learned position."""
    positions: Tensor
    """(N,) int64 in T, sequence by sequence."""
    labels: Tensor
    """(N,) int64: the tokens after them."""
    owners: Tensor
    """(N,) int64: the sequence in S that each belongs to, ascending."""

    @property
    def num_sequences(self) -> int:
        """S."""
        return len(self.borders.lengths)


def collate(sequences: Sequence[Encoded], *, device: torch.device) -> Pack:
    """`sequences` as one pack on `device`."""
    lengths = tuple(len(sequence.input_ids) for sequence in sequences)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    learned = [sequence.num_learned for sequence in sequences]
    unlearned = tuple(len(each.input_ids) - each.num_learned - 1 for each in sequences)
    positions = [
        np.arange(end - count - 1, end - 1) for end, count in zip(starts[1:], learned, strict=True)
    ]
    labels = [
        sequence.input_ids[len(sequence.input_ids) - sequence.num_learned :]
        for sequence in sequences
    ]

    def tensor(parts: Sequence[npt.NDArray[np.int64 | np.int32]]) -> Tensor:
        return torch.from_numpy(np.concatenate(parts).astype(np.int64)).to(device)

    return Pack(
        input_ids=tensor([sequence.input_ids for sequence in sequences])[None],
        position_ids=tensor([np.arange(length) for length in lengths])[None],
        borders=Borders(lengths, device, skipped=(0,) * len(lengths)),
        ends=Borders(lengths, device, skipped=unlearned),
        positions=tensor(positions),
        labels=tensor(labels),
        owners=tensor([np.repeat(np.arange(len(sequences)), learned)]),
    )


def deal(sizes: Sequence[int], num_hands: int) -> list[list[int]]:
    """The indices of `sizes`, dealt so that every hand has about the same sum.

    Largest first, each to the hand that has least; every worker deals alike.
    """
    hands: list[list[int]] = [[] for _ in range(num_hands)]
    sums = [0] * num_hands
    for index in sorted(range(len(sizes)), key=lambda index: (-sizes[index], index)):
        hand = min(range(num_hands), key=lambda hand: (sums[hand], hand))
        hands[hand].append(index)
        sums[hand] += sizes[index]
    return hands


def bins(sizes: Sequence[int], budget: int) -> list[list[int]]:
    """The indices of `sizes` in as few bins of at most `budget` as first fit finds.

    Largest first, so that lengths are alike within a bin where they can be; what is larger
    than the budget gets a bin of its own.
    """
    found: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(sizes)), key=lambda index: (-sizes[index], index)):
        size = sizes[index]
        place = next((place for place, left in enumerate(room) if left >= size), None)
        if place is None:
            found.append([index])
            room.append(budget - size)
        else:
            found[place].append(index)
            room[place] -= size
    return found


def padded_bins(groups: Sequence[Sequence[int]], budget: int) -> list[list[int]]:
    """The same of groups of rows, by their lengths, where each row of a bin is as long as its
    longest.
    """
    found: list[list[int]] = []
    room: list[int] = []
    """Rows as long as the bin's first group's longest, which none that comes later exceeds."""
    for index in sorted(range(len(groups)), key=lambda index: (-max(groups[index]), index)):
        rows = len(groups[index])
        place = next((place for place, left in enumerate(room) if left >= rows), None)
        if place is None:
            found.append([index])
            room.append(budget // max(groups[index]) - rows)
        else:
            found[place].append(index)
            room[place] -= rows
    return found
