"""What a demo run found: plain values, and whether the model got better."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flows.demo.people import Answer

REAL_GAIN = 0.05
"""A change of the share rated good below this counts as none."""
TOOL_TOLERANCE = 0.10
"""A tool may seem worse by this much by chance: each has about 25 held-out requests."""


@dataclass(frozen=True)
class Score:
    """How one version did on the held-out requests."""

    rated_good: float
    """Share that the rubric calls good."""
    accuracy: float
    """Share of the typed words (slots) that came back exactly, of those the answer tried."""
    by_tool: Mapping[str, float]
    """Share rated good by target tool."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """One turn of the loop."""

    number: int
    version: str | None
    """The version trained; None where training was refused."""
    score: Score | None
    decision: str
    reason: str
    num_samples: int
    looks: tuple[tuple[float, float, float, float], ...] = ()
    """Hours, difference, lower and upper bound at each look of its experiment."""
    shares: tuple[tuple[float, float], ...] = ()
    """Hours and the challenger's share."""
    losses: tuple[float, ...] = ()


@dataclass
class Story:
    """The whole run."""

    seed: int
    base: Score
    rounds: list[Round] = field(default_factory=list)
    champion: str | None = None
    champion_score: Score | None = None
    phases: dict[str, float] = field(default_factory=dict)
    """Seconds by phase."""
    seconds: float = 0.0
    """Of the whole run."""
    examples: list[tuple[str, str, str]] = field(default_factory=list)
    """Request, answer before, answer after."""

    @property
    def gain(self) -> float:
        """How much larger the champion's share rated good is than the base model's."""
        return self.champion_score.rated_good - self.base.rated_good if self.champion_score else 0.0

    @property
    def improved(self) -> bool:
        """Whether a promoted version is clearly better than the base model."""
        return self.champion is not None and self.gain > REAL_GAIN

    @property
    def worse_tools(self) -> list[str]:
        """Target tools on which the champion is worse than the base model."""
        if self.champion_score is None:
            return []
        after = self.champion_score.by_tool
        return [
            tool
            for tool, before in sorted(self.base.by_tool.items())
            if after.get(tool, 0.0) < before - TOOL_TOLERANCE
        ]

    def to_json(self) -> dict[str, Any]:
        """The document of `summary.json`."""
        return {
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "phases": {name: round(seconds, 1) for name, seconds in self.phases.items()},
            "base": _score_json(self.base),
            "rounds": [
                {
                    "round": turn.number,
                    "version": turn.version,
                    **_score_json(turn.score),
                    "decision": turn.decision,
                    "reason": turn.reason,
                    "num_samples": turn.num_samples,
                }
                for turn in self.rounds
            ],
            "champion": self.champion,
            "champion_score": _score_json(self.champion_score),
            "gain": round(self.gain, 4),
            "worse_tools": self.worse_tools,
            "improved": self.improved,
        }


def score(answers: Sequence[Answer]) -> Score:
    """Summarise the answers to held-out requests. Raises `ValueError` on none."""
    if not answers:
        raise ValueError("no answer to score")
    right = sum(answer.verdict.slots_right for answer in answers)
    total = sum(answer.verdict.slots_total for answer in answers)
    tools = sorted({answer.request.target_tool for answer in answers})
    return Score(
        rated_good=_share_good(answers),
        accuracy=right / total if total else 0.0,
        by_tool={
            tool: _share_good([item for item in answers if item.request.target_tool == tool])
            for tool in tools
        },
    )


def _share_good(answers: Sequence[Answer]) -> float:
    return sum(answer.verdict.good for answer in answers) / len(answers)


def _score_json(found: Score | None) -> dict[str, Any]:
    if found is None:
        return {"rated_good": None, "accuracy": None, "by_tool": {}}
    return {
        "rated_good": round(found.rated_good, 4),
        "accuracy": round(found.accuracy, 4),
        "by_tool": {tool: round(value, 4) for tool, value in found.by_tool.items()},
    }
