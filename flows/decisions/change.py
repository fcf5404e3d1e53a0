"""Has something changed? A sequential detector for quality, and the drift of prompts.

The detector is the Shiryaev-Roberts e-detector of Shin, Ramdas & Rinaldo, "E-detectors: a
nonparametric framework for sequential change detection" (NEJSDS 2024, arXiv 2203.03532):
Mₙ = eₙ (1 + Mₙ₋₁), whose alarm at Mₙ > A comes, without a change, once in A steps at most, on
average. Its steps are whole days, so that the day's rhythm is in every one of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

BETS = (0.5, 1.0, 1.5)
"""Sizes of the drop that is bet on, in standard deviations of a day."""
FARTHEST = 4.0
"""A day counts for no more than so many standard deviations."""
LEAST_SHARE = 0.01
"""Classes with less of the reference are thrown together."""


@dataclass(frozen=True)
class Change:
    """The detector's state. `evidence` fires beyond `line`."""

    evidence: float
    line: float
    usual: float
    """Mean quality of the reference days."""
    num_days: int
    """Days watched."""
    last: float | None
    """Mean quality of the last day."""

    @property
    def fired(self) -> bool:
        """Whether quality has changed."""
        return self.evidence > self.line


def quality_change(
    reference: Sequence[float], days: Sequence[float], *, tolerance: float, line: float
) -> Change | None:
    """Whether the daily means `days` have fallen by more than `tolerance` (relative).

    None where fewer than seven reference days tell what is usual. Beside the days' own spread,
    that of the reference's mean is allowed for.
    """
    if len(reference) < 7:
        return None
    usual, num = fmean(reference), len(reference)
    spread = max(stdev(reference) * math.sqrt(1 + 1 / num) * (1 + 1 / num), 1e-3 * usual)
    floor = usual * (1 - tolerance)
    evidence = [0.0] * len(BETS)
    for mean in days:
        drop = min(FARTHEST, (floor - mean) / spread)
        evidence = [
            math.exp(min(300.0, bet * drop - bet * bet / 2)) * (1 + before)
            for bet, before in zip(BETS, evidence, strict=True)
        ]
        evidence = [min(value, 1e100) for value in evidence]
    return Change(fmean(evidence), line, usual, len(days), days[-1] if days else None)


@dataclass(frozen=True)
class Drift:
    """How far the mixture of prompts has moved."""

    psi: float
    num_reference: int
    num_now: int
    most: str
    """The class that moved most, with its shares then and now."""


def prompt_drift(reference: Mapping[str, int], now: Mapping[str, int]) -> Drift | None:
    """The population stability index, Σ (q - p) ln(q/p), over classes of prompts.

    Half a prompt is added to every class, so that one that nobody had met is not infinite.
    None where a side is empty.
    """
    before, after = sum(reference.values()), sum(now.values())
    if not before or not after:
        return None
    known = [name for name, num in reference.items() if num >= LEAST_SHARE * before]
    parts: list[tuple[float, str]] = []
    classes = [(name, reference[name], now.get(name, 0)) for name in known]
    classes.append(
        ("other", before - sum(num for _, num, _ in classes), after - sum(c for *_, c in classes))
    )
    for name, old, new in classes:
        p = (old + 0.5) / (before + 0.5 * len(classes))
        q = (new + 0.5) / (after + 0.5 * len(classes))
        parts.append(((q - p) * math.log(q / p), f"{name}: {p:.1%} → {q:.1%}"))
    return Drift(sum(part for part, _ in parts), before, after, max(parts)[1])
