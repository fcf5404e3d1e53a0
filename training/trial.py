"""One trial of a search: a whole run in one process, for its validation loss alone."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import ray

from training.alone import judge, learn
from training.errors import DivergedError
from training.job import Job
from training.transport import unpack


def validation_score(job: Job) -> float:
    """`Validation.score` after the run that `job` describes; infinite where it diverges."""
    with tempfile.TemporaryDirectory() as folder:
        parent = None if job.parent is None else unpack(job.parent, Path(folder))
        try:
            learned = learn(job.recipe, job.base_model, ray.get(job.train), parent=parent)
        except DivergedError:
            return math.inf
    held_out = ray.get(job.validation)
    return judge(learned.model, job.recipe, job.base_model, held_out).score
