"""Runs an evaluation as one Ray task, on the resources of one of the recipe's workers."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray

from training.config import Recipe
from training.encoding import Example
from training.errors import TrainingError
from training.evaluation.suite import EvalExample, Evaluation
from training.transport import Packed, pack, unpack


def evaluate_on_ray(
    *,
    recipe: Recipe,
    base_model: str,
    arms: Mapping[str, Path | None],
    examples: Sequence[EvalExample],
    shots: Sequence[Example] = (),
) -> dict[str, Evaluation]:
    """`evaluate_many` on whatever machine of the cluster is free; Ray is initialised.

    Adapters travel with the task. A lost machine's task is started again by Ray. Raises
    the TrainingErrors of `evaluate_many`.
    """
    workers = recipe.workers
    packed = {name: None if path is None else pack(path) for name, path in arms.items()}
    task: Any = ray.remote(_evaluate).options(
        num_cpus=workers.cpus_per_worker, num_gpus=workers.gpus_per_worker
    )
    try:
        result: dict[str, Evaluation] = ray.get(
            task.remote(recipe, base_model, packed, list(examples), list(shots))
        )
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, TrainingError):
            raise error.cause from error
        raise
    return result


def _evaluate(
    recipe: Recipe,
    base_model: str,
    arms: Mapping[str, Packed | None],
    examples: Sequence[EvalExample],
    shots: Sequence[Example],
) -> dict[str, Evaluation]:
    # The launcher needs neither torch nor transformers.
    import torch

    from training.evaluation.runner import evaluate_many

    torch.set_num_threads(recipe.workers.threads)
    with tempfile.TemporaryDirectory() as parent:
        adapters = {
            name: None if files is None else unpack(files, Path(parent) / str(number))
            for number, (name, files) in enumerate(arms.items())
        }
        return evaluate_many(
            base_model=base_model,
            arms=adapters,
            examples=examples,
            max_new_tokens=recipe.evaluation.max_new_tokens,
            batch_size=recipe.evaluation.batch_size,
            device=recipe.device,
            dtype=torch.float32 if recipe.workers.precision == "fp32" else torch.bfloat16,
            shots=shots,
        )
