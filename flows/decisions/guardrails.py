"""Guardrails: a challenger that is slow, fails or displeases is stopped at once.

Each is an e-process against a line frozen on the champion's first answers of the experiment.
"""

import math
from collections.abc import Sequence
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
    reference = [item.latency_ms for item in champion if item.latency_ms is not None]
    reference = reference[: settings.guardrail_min_reference]
    if len(reference) < settings.guardrail_min_reference:
        return None
    p95 = sorted(reference)[math.ceil(0.95 * len(reference)) - 1]
    line_ms = p95 * settings.latency_tolerance
    slow = [item.latency_ms > line_ms for item in challenger if item.latency_ms is not None]
    evidence = first_alarm(slow, line=SLOW_RATE, alpha=settings.guardrail_alpha)
    return Guardrail(
        "latency",
        evidence,
        f"latency: {evidence.hits} of {evidence.num} answers took over {line_ms:.0f} ms "
        f"({settings.latency_tolerance:g} times the champion's p95)",
    )


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
