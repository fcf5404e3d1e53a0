"""How well a run does on what it was held from; standard library alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean


@dataclass(frozen=True, kw_only=True)
class Validation:
    """The loss on held-out answers, in nats per learned token."""

    loss: float
    by_tool: Mapping[str, float] = field(default_factory=dict)
    """The same by target tool; only tools that occur."""

    @property
    def score(self) -> float:
        """What runs are compared by, lower being better: each target tool weighs the same."""
        return fmean(self.by_tool.values()) if self.by_tool else self.loss
