"""One trial of a search: a whole run in one process, for its validation loss alone."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import ray
import torch

from training.base import load_tokenizer
from training.encoding import EncodedDataset, Example, encode_all
from training.errors import DivergedError
from training.job import Job
from training.loop import TrainingLoop, validate
from training.parallel import Alone
from training.setup import adapted_base, objective_of
from training.transport import unpack


def validation_score(job: Job) -> float:
    """`Validation.score` after the run that `job` describes; infinite where it diverges."""
    recipe, device = job.recipe, torch.device(job.recipe.device)
    torch.set_num_threads(recipe.workers.threads)
    with tempfile.TemporaryDirectory() as folder:
        parent = None if job.parent is None else unpack(job.parent, Path(folder))
        model = adapted_base(recipe, job.base_model, parent=parent, device=device)
    objective = objective_of(recipe, device=device)
    data = _encoded(job, job.train)
    loop = TrainingLoop(
        model=model,
        dataset=data.examples,
        settings=recipe.loop_settings(len(data.examples)),
        collective=Alone(),
        objective=objective,
    )
    try:
        loop.run(lambda _: None)
    except DivergedError:
        return math.inf
    held_out = _encoded(job, job.validation).examples
    return validate(model, held_out, collective=Alone(), objective=objective).score


def _encoded(job: Job, reference: Any) -> EncodedDataset:
    examples: list[Example] = ray.get(reference)
    return encode_all(
        examples, load_tokenizer(job.base_model), max_tokens=job.recipe.data.max_tokens
    )
