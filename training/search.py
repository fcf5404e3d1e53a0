"""A small search for learning rate, rank and epochs before a run, by Ray Tune.

Every trial trains an adapter on one worker's resources and is judged by its validation loss;
the recipe as it stands is one of them. What does not beat it is not taken.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray

from training.config import Recipe
from training.errors import RunFailedError
from training.job import Job, try_settings
from training.storage import open_storage


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Settings of one trial."""

    learning_rate: float
    rank: int
    num_epochs: float | None

    def within(self, recipe: Recipe) -> Recipe:
        """`recipe` with these settings; the adapter's scale alpha / rank stays."""
        lora = recipe.lora
        return recipe.model_copy(
            update={
                "lora": lora.model_copy(
                    update={"rank": self.rank, "alpha": lora.alpha * self.rank / lora.rank}
                ),
                "optimizer": recipe.optimizer.model_copy(
                    update={"learning_rate": self.learning_rate, "num_epochs": self.num_epochs}
                ),
            }
        )


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A choice, and the validation loss that it came to."""

    choice: Choice
    validation_loss: float
    """Mean over the target tools, in nats; infinite where the run diverged."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """What came of a search."""

    recipe: Recipe
    """The best one's, or the given one's where nothing beat it."""
    trials: tuple[Trial, ...] = ()
    """The given recipe's first."""


def choices(recipe: Recipe, *, with_rank: bool) -> list[Choice]:
    """The recipe's own settings, then up to `search.num_trials` others, drawn by its seed.

    `with_rank` is False where a parent's adapter, whose rank stays, is continued.
    """
    search, optimizer = recipe.search, recipe.optimizer
    own = Choice(
        learning_rate=optimizer.learning_rate,
        rank=recipe.lora.rank,
        num_epochs=optimizer.num_epochs,
    )
    grid = itertools.product(
        search.learning_rates or (own.learning_rate,),
        (with_rank and search.ranks) or (own.rank,),
        search.epochs or (own.num_epochs,),
    )
    others = [
        choice
        for rate, rank, epochs in grid
        if (choice := Choice(learning_rate=rate, rank=rank, num_epochs=epochs)) != own
    ]
    random.Random(recipe.seed).shuffle(others)
    return [own, *others[: search.num_trials]]


def find_recipe(job: Job, *, run_id: str, storage_path: str) -> Search:
    """Tries what `job.recipe.search` names; Ray is initialised, and decides how many at once.

    Raises `RunFailedError` where the recipe's own settings could not be tried.
    """
    recipe = job.recipe
    tried = choices(recipe, with_rank=job.parent is None)
    if len(tried) == 1:
        return Search(recipe=recipe)
    losses = _losses(job, [each.within(recipe) for each in tried], run_id, storage_path)
    trials = tuple(
        Trial(choice=choice, validation_loss=loss)
        for choice, loss in zip(tried, losses, strict=True)
    )
    best = min(trials, key=lambda trial: trial.validation_loss)
    return Search(recipe=best.choice.within(recipe), trials=trials)


def _losses(job: Job, recipes: Sequence[Recipe], run_id: str, storage_path: str) -> list[float]:
    from ray import tune  # which only a search should wait for

    workers = job.recipe.workers
    resources = {"CPU": workers.cpus_per_worker, "GPU": float(workers.gpus_per_worker)}
    path, filesystem = open_storage(storage_path)
    tuner = tune.Tuner(
        tune.with_resources(try_settings, resources),
        # By reference: what a trial is told is copied and printed in many places.
        param_space={
            "job": ray.put(job),
            "recipes": ray.put(list(recipes)),
            "number": tune.grid_search([*range(len(recipes))]),
        },
        tune_config=tune.TuneConfig(metric="validation_loss", mode="min", num_samples=1),
        run_config=tune.RunConfig(
            name=f"{run_id}-search", storage_path=path, storage_filesystem=filesystem, verbose=0
        ),
    )
    losses = [math.inf] * len(recipes)
    faults = []
    found = tuner.fit()
    for result in (found[place] for place in range(len(found))):
        if result.error is None:
            told: dict[str, Any] = result.metrics or {}
            losses[told["number"]] = told["validation_loss"]
        else:
            faults.append(str(result.error).strip().splitlines()[-1])
    if math.isinf(losses[0]) and faults:
        raise RunFailedError(f"Run {run_id}: no setting could be tried: {faults[0]}")
    return losses
