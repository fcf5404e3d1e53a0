"""Guardrails: a challenger that is slow, fails or displeases is stopped at once.

Each is an e-process that compares the arms with each other at the same time, never with a line
drawn earlier: machines have good and bad hours, and a trouble of both arms is not the
challenger's (docs/decisions/0004-latency-line-follows-the-champion.md).

Errors and latency are e-processes where answers are independent. Those of one person are not: an
alarm also takes evidence in which each person is one draw (`flows.decisions.people`).
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from flows.decisions.people import Units, people_log_e
from flows.decisions.ranks import normal_scores, rank_log_es
from flows.decisions.sequential import (
    ODDS_RATIOS,
    Array,
    Flags,
    mixed,
    restarted,
    two_rates_log_e,
)

LEANING = 0.0
"""Evidence that is no alarm yet, but enough not to give the challenger more people."""
SAME_TIME = 20
"""Consecutive answers that are compared with each other where people are."""
LATELY, HOPELESS = 20, 0.9
"""Answers of the challenger, and the share of failures among them, beyond which nobody is asked."""
RATE_MEMORY = 500.0
"""Answers of the champion after which what was seen of its error rate counts a third."""


@dataclass(frozen=True)
class Evidence:
    """One test with its e-value: the highest so far, as far as the people bear it out now."""

    name: str
    log_e_value: float
    line: float
    """ln(1/α): where the alarm is."""
    text: str
    now: float | None = None
    """ln of the e-value as it stands; None in what was kept before this was."""

    @property
    def leans(self) -> bool:
        """Whether the evidence now speaks against the challenger."""
        return self.now is not None and self.now > LEANING

    @property
    def alarm(self) -> bool:
        """Whether the evidence has ever passed the line."""
        return self.log_e_value > self.line


def errors(
    challenger: Flags, failed: Flags, *, alpha: float, people: Units | None = None
) -> Evidence:
    """Against "the challenger fails no more often than the champion", answers in their order.

    A block ends as soon as both arms have answered; the common rate of each block may be any.
    `people`: None where both arms answer the same ones.
    """
    hits, num = _blocks(challenger, failed)
    rate = past_rate(hits[:, 0], num[:, 0])
    paths = [
        restarted(
            two_rates_log_e(hits[:, 1], num[:, 1], hits[:, 0], num[:, 0], rate=rate, odds=odds)
        )
        for odds in ODDS_RATIOS
    ]
    mine, others = failed[challenger], failed[~challenger]
    text = (
        f"errors: {int(mine.sum())} of {len(mine)} answers, "
        f"the champion {int(others.sum())} of {len(others)} in the same time"
    )
    found = _evidence("error", mixed(paths) if len(num) else np.zeros(0), alpha, text)
    if people is None or not found.alarm or is_hopeless(challenger, failed):
        return found
    return _of_people(found, people_log_e(people, challenger, above_others(failed)))


def is_hopeless(challenger: Flags, failed: Flags) -> bool:
    """Whether hardly any of the challenger's last answers has succeeded, and most of the others.

    Nothing is learned from such a challenger, whosever fault it is, and few people alone never
    prove it: the one in ten who got it may be who fails.
    """
    mine = np.flatnonzero(challenger)[-LATELY:]
    if len(mine) < LATELY:
        return False
    since = slice(mine[0], None)
    others = failed[since][~challenger[since]]
    fails = failed[mine].mean() >= HOPELESS
    return bool(fails and len(others) >= LATELY and others.mean() <= 1 / 2)


def above_others(failed: Flags) -> Array:
    """By how much more each answer failed than those of the same time: an outage is nobody's."""
    block = np.arange(len(failed)) // SAME_TIME
    rate = np.bincount(block, weights=failed) / np.bincount(block)
    return failed - rate[block]


def _of_people(found: Evidence, log_e: float) -> Evidence:
    """The lesser of the two: what may be but the people it got is no alarm."""
    return replace(found, log_e_value=min(found.log_e_value, log_e))


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
    challenger: Flags,
    latencies: Array,
    *,
    tolerance: float,
    num_reference: int,
    alpha: float,
    people: Units | None = None,
) -> Evidence:
    """Against "the challenger takes at most `tolerance` times what the champion takes".

    Bets on the ranks within blocks of `num_reference` + 1 consecutive answers, so that only
    answers of the same time are compared (`flows.decisions.ranks`). `people`: see `errors`.
    """
    size = num_reference + 1
    num = len(latencies) // size
    treated = challenger[: num * size].reshape(num, size)
    allowed = np.where(treated, 1 / tolerance, 1) * latencies[: num * size].reshape(num, size)
    path = mixed(list(restarted(rank_log_es(treated, allowed)))) if num else np.zeros(0)
    text = (
        f"latency: in {_slower(treated, allowed):.0%} of comparisons the challenger took over "
        f"{tolerance:g} times what the champion took at the same time (50% is the line)"
    )
    found = _evidence("latency", path, alpha, text)
    if people is None or not found.alarm:
        return found
    some = people.of(slice(num * size))
    return _of_people(found, people_log_e(some, treated.ravel(), normal_scores(allowed).ravel()))


def _slower(treated: Flags, allowed: Array) -> float:
    """The share of pairs within a block in which the challenger took longer."""
    pairs = treated[:, :, None] & ~treated[:, None, :]
    longer = pairs & (allowed[:, :, None] > allowed[:, None, :])
    return float(longer.sum() / max(1, pairs.sum()))


def _evidence(name: str, path: Array, alpha: float, text: str) -> Evidence:
    return Evidence(
        name,
        float(path.max(initial=0.0)),
        -math.log(alpha),
        text,
        now=float(path[-1]) if len(path) else 0.0,
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
