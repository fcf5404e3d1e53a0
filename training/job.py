"""What a training run's workers are sent and what they return.

Light on purpose: the launcher and Ray Train's controller load this, and should not pay
for transformers and PEFT, which only the workers need.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import ray

from training.config import Recipe
from training.errors import TrainingError
from training.transport import Packed
from training.validation import Validation


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker is sent. Nothing in it is a path on the launcher's disk."""

    recipe: Recipe
    base_model: str
    train: Any
    """Reference to a list[Example] in Ray's object store."""
    validation: Any
    """The same, or None."""
    parent: Packed | None
    """The adapter to continue from."""
    run_digest: str
    """Names recipe, data, base and parent; a checkpoint of another run is refused."""
    board: Any
    """Handle of the launcher's `Board`."""
    turn: int = 0
    """Runs of other seeds that came before this one."""


@dataclass(frozen=True, kw_only=True)
class WorkerOutcome:
    """What rank 0 returns. The adapter is in the last checkpoint."""

    losses: tuple[float, ...] = ()
    num_tokens: int = 0
    num_truncated: int = 0
    num_dropped: int = 0
    validation: Validation | None = None
    prepare_s: float = 0.0
    """Seconds to import, load and encode."""
    train_s: float = 0.0
    """Seconds in the loop, checkpoints included; of the last group of workers."""
    error: TrainingError | None = None
    """Why there is no adapter, where trying again would end the same way."""


def work(config: dict[str, Any]) -> WorkerOutcome:
    """The train function: fetches the Job behind `config["job"]` and does its part of it."""
    started = time.perf_counter()
    from training.worker import train_worker

    return train_worker(ray.get(config["job"]), started=started)


def try_settings(config: dict[str, Any]) -> dict[str, float]:
    """One trial of a search: trains with `config["recipes"][config["number"]]`, and is judged."""
    from training.trial import validation_score

    recipes: list[Recipe] = ray.get(config["recipes"])
    job: Job = ray.get(config["job"])
    number: int = config["number"]
    return {
        "number": number,
        "validation_loss": validation_score(replace(job, recipe=recipes[number])),
    }
