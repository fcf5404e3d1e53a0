"""Guardrails: a challenger that is slow, fails or displeases is stopped at once.

Each is an e-process that compares the arms with each other at the same time, never with a line
drawn earlier: machines have good and bad hours, and a trouble of both arms is not the
challenger's (docs/decisions/0004-latency-line-follows-the-champion.md).
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flows.decisions.sequential import ODDS_RATIOS, Array, bet_log_e, mixed, two_rates_log_e

Flags = npt.NDArray[np.bool_]
TAIL = 0.05
"""By definition of a p95, this share of equal answers is slower."""
RANK_STAKES, TAIL_STAKES = (0.5, 1.0, 1.8), (2.0, 5.0, 12.0)
RATE_MEMORY = 500.0
"""Answers of the champion after which what was seen of its error rate counts a third."""


@dataclass(frozen=True)
class Evidence:
    """One test with its e-value. The highest e-value so far counts: an alarm stays."""

    name: str
    log_e_value: float
    line: float
    """ln(1/α): where the alarm is."""
    text: str

    @property
    def alarm(self) -> bool:
        """Whether the evidence has ever passed the line."""
        return self.log_e_value > self.line


def errors(challenger: Flags, failed: Flags, *, alpha: float) -> Evidence:
    """Against "the challenger fails no more often than the champion", answers in their order.

    A block ends as soon as both arms have answered; the common rate of each block may be any.
    """
    hits, num = _blocks(challenger, failed)
    rate = past_rate(hits[:, 0], num[:, 0])
    paths = [
        np.cumsum(
            two_rates_log_e(hits[:, 1], num[:, 1], hits[:, 0], num[:, 0], rate=rate, odds=odds)
        )
        for odds in ODDS_RATIOS
    ]
    highest = float(mixed(paths).max(initial=0.0)) if len(num) else 0.0
    mine, others = failed[challenger], failed[~challenger]
    text = (
        f"errors: {int(mine.sum())} of {len(mine)} answers, "
        f"the champion {int(others.sum())} of {len(others)} in the same time"
    )
    return Evidence("error", highest, -math.log(alpha), text)


def past_rate(hits: Array, num: Array) -> Array:
    """What is to be bet on the champion's error rate in each block, from the blocks before it."""
    rates = np.empty(len(num))
    seen_hits, seen = 0.5, 25.0
    for block, (hit, count) in enumerate(zip(hits, num, strict=True)):
        rates[block] = seen_hits / seen
        keep = math.exp(-count / RATE_MEMORY)
        seen_hits, seen = seen_hits * keep + hit, seen * keep + count
    return np.clip(rates, 0.002, 0.9)


def latency(
    challenger: Flags, latencies: Array, *, tolerance: float, num_reference: int, alpha: float
) -> Evidence | None:
    """Against "the challenger takes at most `tolerance` times what the champion takes".

    Each answer of the challenger gets its rank among the champion's `num_reference` answers
    before it, made longer by `tolerance`: evenly spread in [0, 1] where it is just as slow as
    tolerated, lower where it is faster. Bets are placed on a high mean rank (slow on the
    whole) and on the highest twentieth (a slow tail). None while there is no reference.
    """
    control = latencies[~challenger]
    before = np.cumsum(~challenger)[challenger]
    judged = before >= num_reference
    if len(control) < num_reference:
        return None
    windows = np.lib.stride_tricks.sliding_window_view(control, num_reference)
    values = latencies[challenger][judged]
    reference = windows[before[judged] - num_reference]
    ranks = (values[:, None] > tolerance * reference).mean(axis=1)
    highest = float(latency_log_e(ranks).max(initial=0.0)) if len(ranks) else 0.0
    slow = int((ranks >= 1 - TAIL).sum())
    text = (
        f"latency: {slow} of {len(ranks)} answers took over {tolerance:g} times the p95 of the "
        f"champion's {num_reference} before; mean rank {ranks.mean() if len(ranks) else 0:.2f} "
        "(0.50 is the line)"
    )
    return Evidence("latency", highest, -math.log(alpha), text)


def latency_log_e(ranks: Array) -> Array:
    """The e-process over ranks along the first axis."""
    tail = (ranks >= 1 - TAIL).astype(float)
    return mixed(
        [
            *(np.cumsum(bet_log_e(ranks, mean=0.5, stake=s), axis=0) for s in RANK_STAKES),
            *(np.cumsum(bet_log_e(tail, mean=TAIL, stake=s), axis=0) for s in TAIL_STAKES),
        ]
    )


def _blocks(challenger: Flags, failed: Flags) -> tuple[Array, Array]:
    """Failures and answers of (champion, challenger) in each block, (blocks, 2)."""
    hits: list[tuple[int, int]] = []
    nums: list[tuple[int, int]] = []
    hit, num = [0, 0], [0, 0]
    for arm, fault in zip(challenger.tolist(), failed.tolist(), strict=True):
        num[arm] += 1
        hit[arm] += fault
        if num[0] and num[1]:
            hits.append((hit[0], hit[1]))
            nums.append((num[0], num[1]))
            hit, num = [0, 0], [0, 0]
    return (
        np.array(hits, dtype=np.float64).reshape(-1, 2),
        np.array(nums, dtype=np.float64).reshape(-1, 2),
    )
