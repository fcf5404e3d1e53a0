"""Guardrails: a challenger that is slow, fails or displeases is stopped at once.

Each is an e-process. Errors and negative feedback are held against a line frozen on the
champion's first answers. Latency moves with the machine's load, so each answer is held
against the champion's answers just before it: a line that only the past gives keeps the
e-process valid (docs/decisions/0004-latency-line-follows-the-champion.md).
"""

import math
from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from flows.decisions.sequential import RateAlarm, first_alarm, wilson_upper
from registry.experiments import Observation
from registry.settings import ExperimentSettings

SLOW_RATE = 0.05
"""By definition of a p95, this share of equal answers is slower."""


@dataclass(frozen=True)
class Guardrail:
    """One guardrail with its evidence so far."""

    name: str
    evidence: RateAlarm
    text: str


def check_guardrails(
    champion: Sequence[Observation],
    challenger: Sequence[Observation],
    settings: ExperimentSettings,
) -> tuple[Guardrail, ...]:
    """The guardrails that can be judged: those whose line the champion's answers give."""
    checks = (
        _latency(champion, challenger, settings),
        _rate(
            "error",
            [item.failed for item in champion],
            [item.failed for item in challenger],
            settings,
        ),
        _rate(
            "negative_feedback",
            [item.thumb == -1 for item in champion if item.thumb is not None],
            [item.thumb == -1 for item in challenger if item.thumb is not None],
            settings,
        ),
    )
    return tuple(check for check in checks if check is not None)


def _latency(
    champion: Sequence[Observation],
    challenger: Sequence[Observation],
    settings: ExperimentSettings,
) -> Guardrail | None:
    num_reference = settings.guardrail_min_reference
    reference = [item for item in champion if item.latency_ms is not None]
    if len(reference) < num_reference:
        return None
    times = [item.created_at for item in reference]
    slow: list[bool] = []
    for item in challenger:
        if item.latency_ms is None:
            continue
        # The first answers of a challenger are held against the champion's first ones.
        end = max(bisect_left(times, item.created_at), num_reference)
        recent = [other.latency_ms or 0.0 for other in reference[end - num_reference : end]]
        slow.append(item.latency_ms > settings.latency_tolerance * _p95(recent))
    evidence = first_alarm(slow, line=SLOW_RATE, alpha=settings.guardrail_alpha)
    return Guardrail(
        "latency",
        evidence,
        f"latency: {evidence.hits} of {evidence.num} answers took over "
        f"{settings.latency_tolerance:g} times the p95 of the champion's {num_reference} before",
    )


def _p95(latencies: Collection[float]) -> float:
    """The value that 95 % do not exceed (nearest rank)."""
    return sorted(latencies)[math.ceil(0.95 * len(latencies)) - 1]


def _rate(
    name: str,
    champion: Sequence[bool],
    challenger: Sequence[bool],
    settings: ExperimentSettings,
) -> Guardrail | None:
    """The line is the upper confidence end of the champion's own rate, so chance is allowed for."""
    reference = champion[: settings.guardrail_min_reference]
    if len(reference) < settings.guardrail_min_reference:
        return None
    line = min(0.95, wilson_upper(sum(reference), len(reference)))
    evidence = first_alarm(challenger, line=line, alpha=settings.guardrail_alpha)
    return Guardrail(
        name,
        evidence,
        f"{name.replace('_', ' ')}: {evidence.hits} of {evidence.num} answers "
        f"(line: {line:.1%}, from the champion's first {len(reference)})",
    )
