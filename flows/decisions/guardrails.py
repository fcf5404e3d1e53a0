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
RANK_STAKES, TAIL_STAKES = (0.4, 0.8, 1.3), (3.0, 8.0)
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
) -> Evidence:
    """Against "the challenger takes at most `tolerance` times what the champion takes".

    Two bets on answers of the same time, each answer used once, so that the blocks are
    independent however the load moves. On the mean rank: in a block that ends as soon as both
    arms have answered, the share of pairs in which the challenger took longer has mean ½. On
    the tail: of equal answers, one in `num_reference` + 1 takes longer than all of
    `num_reference` others.
    """
    longer = tolerance * latencies
    ranks = [
        float((latencies[mine][:, None] > longer[others]).mean())
        for mine, others in _runs(challenger, 1)
    ]
    tails = [
        float((latencies[mine] > longer[others[:num_reference]].max()).mean())
        for mine, others in _runs(challenger, num_reference)
    ]
    bets = [
        *(bet_log_e(np.array(ranks), mean=0.5, stake=stake) for stake in RANK_STAKES),
        *(
            bet_log_e(np.array(tails), mean=1 / (num_reference + 1), stake=stake)
            for stake in TAIL_STAKES
        ),
    ]
    text = (
        f"latency: in {np.mean(ranks) if ranks else 0:.0%} of comparisons the challenger took over "
        f"{tolerance:g} times what the champion took at the same time (50% is the line); it was "
        f"slower than {num_reference} of {num_reference} in {np.mean(tails) if tails else 0:.0%} "
        f"({1 / (num_reference + 1):.0%} is the line)"
    )
    return Evidence("latency", _highest(bets), -math.log(alpha), text)


def _highest(bets: list[Array]) -> float:
    """ln of the largest wealth that any bet has ever had, over the number of bets.

    Each passes n/α with probability ≤ α/n, so that any of n does with probability ≤ α.
    """
    largest = max(float(np.cumsum(bet).max(initial=0.0)) for bet in bets)
    return largest - math.log(len(bets))


def _runs(challenger: Flags, num_control: int) -> list[tuple[npt.NDArray[np.int64], ...]]:
    """Places of (challenger, champion) in runs with at least one and `num_control` of them."""
    found: list[tuple[npt.NDArray[np.int64], ...]] = []
    mine: list[int] = []
    others: list[int] = []
    for place, treated in enumerate(challenger.tolist()):
        (mine if treated else others).append(place)
        if mine and len(others) >= num_control:
            found.append((np.array(mine), np.array(others)))
            mine, others = [], []
    return found


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
