"""Whether a trained version may meet people: no worse than who serves now, on held-out data."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from registry.settings import GateSettings


@dataclass(frozen=True)
class ToolScore:
    """Accuracy in [0, 1] on the held-out samples of one target tool."""

    num_samples: int
    accuracy: float


@dataclass(frozen=True)
class Scores:
    """Accuracy in [0, 1] on held-out samples, overall and by target tool."""

    accuracy: float
    num_samples: int
    by_tool: Mapping[str, ToolScore] = field(default_factory=dict)


@dataclass(frozen=True)
class GateDecision:
    """Whether the candidate passed; the reasons tell every comparison made."""

    passed: bool
    reasons: tuple[str, ...]


def decide(incumbent: Scores, candidate: Scores, settings: GateSettings) -> GateDecision:
    """Compare a candidate with the incumbent (the champion, or the base model) on one set."""
    if candidate.num_samples == 0:
        return GateDecision(False, ("no held-out sample to compare on",))
    faults: list[str] = []
    notes: list[str] = []

    def compare(what: str, before: float, after: float, num_samples: int) -> None:
        text = f"{what}: accuracy {before:.3f} → {after:.3f}"
        limit = settings.max_accuracy_loss + standard_error(before, after, num_samples)
        if before - after > limit:
            faults.append(f"{text} on {num_samples} samples, a loss of more than {limit:.3f}")
        else:
            notes.append(text)

    compare("overall", incumbent.accuracy, candidate.accuracy, candidate.num_samples)
    for tool, score in sorted(candidate.by_tool.items()):
        before = incumbent.by_tool.get(tool)
        if before is None or score.num_samples < settings.min_samples_per_tool:
            notes.append(f"{tool}: not judged on {score.num_samples} samples")
        else:
            compare(tool, before.accuracy, score.accuracy, score.num_samples)
    return GateDecision(not faults, (*faults, *notes))


def standard_error(before: float, after: float, num_samples: int) -> float:
    """Of the difference of two shares on `num_samples` each, taken as independent.

    One answer of twenty weighs 0.05 by itself: without this allowance, chance alone would
    refuse an equal version on some tool most of the time.
    """
    return math.sqrt((before * (1 - before) + after * (1 - after)) / num_samples)
