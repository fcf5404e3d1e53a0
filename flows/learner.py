"""What the flows need of training: to fine-tune an adapter and to evaluate some."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from flows.decisions.gate import Scores

FEW_SHOT = "few-shot"
"""The base model with a few examples in its prompt: what training must beat to be worth it."""

Progress = Callable[[float, str], None]
"""Told how far a training has come: percent (0-100) and a line for people."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A finished training."""

    adapter: Path
    """A PEFT adapter folder, complete but for its manifest."""
    base_digest: str
    metrics: Mapping[str, Any]
    losses: tuple[tuple[int, float], ...] = ()
    """Training loss by step."""


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """How one version did on held-out samples."""

    scores: Scores
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Accuracy, diversity, coherence and whatever else the suite measures. What has an interval
    has its ends beside it, as in "accuracy from" and "accuracy to"."""
    by_tool: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """The same by target tool."""
    by_language: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """The same by language."""


class Learner(Protocol):
    """Trains and evaluates on one base model."""

    base_model: str
    recipe: str

    @property
    def objective(self) -> str:
        """sft, dpo, kto or mixed (`training.objectives`)."""

    def train(
        self,
        *,
        run_id: str,
        train_file: Path,
        validation_file: Path,
        parent: Path | None,
        folder: Path,
        progress: Progress,
    ) -> Trained:
        """Fine-tune from `parent` (an adapter folder; None: the base) on `train_file`.

        `folder` is the run's own. The same run id resumes where a run that was killed stopped.
        """
        ...

    def evaluate(
        self, adapters: Mapping[str, Path | None], *, data: Path, shots: Path | None = None
    ) -> dict[str, Evaluated]:
        """Evaluate each adapter (None: the base alone) on the same examples.

        `shots` is a training file: with it comes the arm FEW_SHOT, the base with some of its
        examples in the prompt.
        """
        ...
