"""Trains and evaluates on Ray: the flows' side of `training.launch` and `training.evaluation`."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flows.decisions.gate import Scores, ToolScore
from flows.learner import Evaluated, Progress, Trained
from flows.runtime import ray_session
from registry.settings import Settings
from registry.settings_training import JudgeSettings
from training.base import base_digest, resolve_base
from training.config import load_recipe
from training.encoding import read_examples
from training.evaluation.frozen import apart_from, read_suite
from training.evaluation.judging import Judge, judge_answers
from training.evaluation.remote import evaluate_on_ray
from training.evaluation.suite import EvalExample, Evaluation, from_training
from training.evaluation.suite import Scores as Measured
from training.launch import SeedRun, train
from training.progress import Progress as Step
from training.search import Trial
from training.storage import discard

logger = logging.getLogger(__name__)

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
        storage = self._checkpoints(run_id, folder)
        # Progress comes in another thread, which must know the flow run that it belongs to.
        here = copy_context()
        told = -1

        def on_progress(step: Step) -> None:
            nonlocal told
            note = step.step * NUM_NOTES // step.num_steps
            if note > told:
                told = note
                text = (
                    f"step {step.step}/{step.num_steps}, loss {step.loss:.3f}, "
                    f"{step.tokens_per_s:.0f} tokens/s"
                )
                here.run(progress, 100 * step.step / step.num_steps, text)

        with ray_session(self._settings), _discarded(storage):
            outcome = train(
                run_id=run_id,
                train_file=train_file,
                validation_file=validation_file,
                recipe=self._recipe,
                base_model=self.base_model,
                parent_adapter=parent,
                output_dir=folder / "adapter",
                storage_path=storage,
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
                "seconds preparing": outcome.prepare_s,
                "seconds training": outcome.train_s,
                "seeds": [_seed(run) for run in outcome.seeds],
                "trials": [_trial(trial) for trial in outcome.trials],
            },
            losses=tuple(enumerate(outcome.losses, start=1)),
        )

    def evaluate(
        self, adapters: Mapping[str, Path | None], *, data: Path, shots: Path | None = None
    ) -> dict[str, Evaluated]:
        """See `Learner.evaluate`. What is near to a frozen suite is no shot, either."""
        training = self._settings.training
        examples = from_training(read_examples(data))
        shown, _ = apart_from(
            () if shots is None else read_examples(shots),
            (question for path in training.suites for question in read_suite(path)),
        )
        with ray_session(self._settings):
            found = evaluate_on_ray(
                recipe=self._recipe,
                base_model=self.base_model,
                arms=adapters,
                examples=examples,
                shots=shown,
            )
        judged = {
            name: _judged(training.judge, examples, evaluation)
            for name, evaluation in found.items()
        }
        return {name: _evaluated(evaluation, judged[name]) for name, evaluation in found.items()}

    def _checkpoints(self, run_id: str, folder: Path) -> str:
        url = self._settings.artifacts_url
        return f"{url.rstrip('/')}/checkpoints/{run_id}" if url else str(folder / "checkpoints")


@contextmanager
def _discarded(storage: str) -> Iterator[None]:
    """Checkpoints are of one run alone, and hold what people's samples have taught it."""
    try:
        yield
    finally:
        try:
            discard(storage)
        except Exception as error:
            # What stores raise is their own; what was trained must not be lost to it.
            logger.warning("checkpoints are left in %s: delete them (%s)", storage, error)


def _seed(run: SeedRun) -> dict[str, Any]:
    validation = run.validation
    if run.diverged is not None:
        return {"seed": run.seed, "diverged": run.diverged}
    if validation is None:
        return {"seed": run.seed}
    return {"seed": run.seed, "validation_loss": validation.loss, "by_tool": validation.by_tool}


def _trial(trial: Trial) -> dict[str, Any]:
    # A diverged one has no loss: JSON knows no infinity.
    loss = trial.validation_loss if math.isfinite(trial.validation_loss) else None
    return {**asdict(trial.choice), "validation_loss": loss}


def _judged(
    settings: JudgeSettings, examples: Sequence[EvalExample], evaluation: Evaluation
) -> dict[str, float]:
    """What the judge thinks, as metrics; nothing where there is none."""
    if settings.url is None:
        return {}
    key = settings.api_key
    judge = Judge(
        url=settings.url,
        model=settings.model,
        api_key=None if key is None else key.get_secret_value(),
        timeout_s=settings.timeout_s,
        concurrency=settings.concurrency,
        max_answers=settings.max_answers,
    )
    found = judge_answers(judge, examples, evaluation.answers)
    told = {"judged": float(found.num_judged), "unjudged": float(found.num_failed)}
    if found.mean is not None and found.interval is not None:
        told |= _with_interval("judge", found.mean, found.interval)
    return told


def _evaluated(evaluation: Evaluation, judged: Mapping[str, float]) -> Evaluated:
    overall = evaluation.overall
    return Evaluated(
        scores=Scores(
            overall.accuracy,
            overall.num_samples,
            {
                tool: ToolScore(scores.num_samples, scores.accuracy)
                for tool, scores in evaluation.by_tool.items()
            },
        ),
        metrics={**_metrics(overall), **judged},
        by_tool={tool: _metrics(scores) for tool, scores in evaluation.by_tool.items()},
        by_language={
            language: _metrics(scores) for language, scores in evaluation.by_language.items()
        },
    )


def _metrics(scores: Measured) -> dict[str, float]:
    """By name; what could not be measured is left out."""
    found = {
        "samples": float(scores.num_samples),
        **_with_interval("accuracy", scores.accuracy, scores.accuracy_interval),
        **_with_interval("chrF", scores.chrf, scores.chrf_interval),
        **_with_interval("ROUGE-L", scores.rouge, scores.rouge_interval),
        "section accuracy": scores.section_accuracy,
        "coherence": scores.coherence,
        "diversity": scores.diversity,
        "self-BLEU": scores.self_bleu,
        "perplexity": scores.perplexity,
        "mean tokens": scores.mean_tokens,
        "repetition": scores.repetition,
        "refusals": scores.refusals,
        "latency p50 (s)": scores.latency_p50_s,
        "latency p95 (s)": scores.latency_p95_s,
    }
    return {name: value for name, value in found.items() if value is not None}


def _with_interval(name: str, value: float, interval: tuple[float, float]) -> dict[str, float]:
    low, high = interval
    return {name: value, f"{name} from": low, f"{name} to": high}
