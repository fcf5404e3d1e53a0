"""What the training loop and its objective are told, and the learning rate: standard library
alone, so that recipes can be read without loading torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

ObjectiveName = Literal["sft", "dpo", "kto", "mixed"]


@dataclass(frozen=True, kw_only=True)
class ObjectiveSettings:
    """Which objective and how; `training.config.ObjectiveRecipe` describes each field."""

    name: ObjectiveName = "sft"
    beta: float = 0.1
    preference_weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """What a run of the loop does; `training.config.Recipe` describes each field."""

    num_steps: int
    global_batch: int
    tokens_per_pass: int
    learning_rate: float
    warmup_steps: int
    schedule: str
    weight_decay: float
    max_grad_norm: float
    balance_by_tool: bool
    seed: int
    equal_passes: bool = False
    """Whether all workers must compute equally often, as they do where they share a base."""


def learning_rate_at(step: int, settings: LoopSettings) -> float:
    """The learning rate of step `step`, counted from 0."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    remaining = settings.num_steps - settings.warmup_steps
    progress = (step - settings.warmup_steps) / max(1, remaining)
    if settings.schedule == "linear":
        return settings.learning_rate * (1 - progress)
    if settings.schedule == "cosine":
        return settings.learning_rate * (1 + math.cos(math.pi * progress)) / 2
    return settings.learning_rate
