"""Trains and evaluates on Ray: the flows' side of `training.launch` and `training.evaluation`."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import copy_context
from pathlib import Path

from flows.decisions.gate import Scores, ToolScore
from flows.learner import Evaluated, Progress, Trained
from flows.runtime import ray_session
from registry.settings import Settings
from training.base import base_digest, resolve_base
from training.config import load_recipe
from training.encoding import read_examples
from training.evaluation.remote import evaluate_on_ray
from training.evaluation.suite import Evaluation, from_training
from training.launch import train
from training.progress import Progress as Step

NUM_NOTES = 20
"""How often a training tells its progress."""


class RayLearner:
    """The learner of an installation: its base model, its recipe, its Ray."""

    def __init__(self, settings: Settings) -> None:
        """Raises `RecipeError` where the recipe that the settings name is unfit."""
        self._settings = settings
        self._recipe = load_recipe(settings.training.recipe)
        self.base_model = settings.training.base_model
        self.recipe = self._recipe.name
        self.objective: str = self._recipe.objective.name

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
        """See `Learner.train`. Checkpoints go where all machines of the cluster see them."""
        # Progress comes in another thread, which must know the flow run that it belongs to.
        here = copy_context()
        told = -1

        def on_progress(step: Step) -> None:
            nonlocal told
            note = step.step * NUM_NOTES // step.num_steps
            if note > told:
                told = note
                text = f"step {step.step}/{step.num_steps}, loss {step.loss:.3f}"
                here.run(progress, 100 * step.step / step.num_steps, text)

        with ray_session(self._settings):
            outcome = train(
                run_id=run_id,
                train_file=train_file,
                validation_file=validation_file,
                recipe=self._recipe,
                base_model=self.base_model,
                parent_adapter=parent,
                output_dir=folder / "adapter",
                storage_path=self._checkpoints(folder),
                on_progress=on_progress,
                suites=self._settings.training.suites,
            )
        return Trained(
            adapter=outcome.adapter_dir,
            base_digest=base_digest(resolve_base(self.base_model)),
            metrics={
                "steps": outcome.num_steps,
                "tokens": outcome.num_tokens,
                "validation_loss": outcome.validation_loss,
                "failures": outcome.num_failures,
                "truncated": outcome.num_truncated,
                "dropped": outcome.num_dropped,
                "held back": outcome.num_held_back,
                "seconds": outcome.seconds,
            },
            losses=tuple(enumerate(outcome.losses, start=1)),
        )

    def evaluate(
        self, adapters: Mapping[str, Path | None], *, data: Path, shots: Path | None = None
    ) -> dict[str, Evaluated]:
        """See `Learner.evaluate`."""
        with ray_session(self._settings):
            found = evaluate_on_ray(
                recipe=self._recipe,
                base_model=self.base_model,
                arms=adapters,
                examples=from_training(read_examples(data)),
                shots=() if shots is None else read_examples(shots),
            )
        return {name: _evaluated(evaluation) for name, evaluation in found.items()}

    def _checkpoints(self, folder: Path) -> str:
        url = self._settings.artifacts_url
        return f"{url.rstrip('/')}/checkpoints" if url else str(folder / "checkpoints")


def _evaluated(evaluation: Evaluation) -> Evaluated:
    overall = evaluation.overall
    metrics = {
        "accuracy": overall.accuracy,
        "section accuracy": overall.section_accuracy,
        "diversity": overall.diversity,
        "coherence": overall.coherence,
        "mean tokens": overall.mean_tokens,
        "accuracy from": overall.accuracy_interval[0],
        "accuracy to": overall.accuracy_interval[1],
        "chrF": overall.chrf,
        "repetition": overall.repetition,
        "refusals": overall.refusals,
    }
    return Evaluated(
        scores=Scores(
            overall.accuracy,
            overall.num_samples,
            {
                tool: ToolScore(scores.num_samples, scores.accuracy)
                for tool, scores in evaluation.by_tool.items()
            },
        ),
        metrics={name: value for name, value in metrics.items() if value is not None},
    )
