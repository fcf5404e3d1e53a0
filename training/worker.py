"""What every Ray Train worker runs: loads, resumes, trains, reports checkpoints."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import ray
import ray.train
import torch
from peft import PeftModel
from ray.train.torch import get_device

from training.base import load_tokenizer
from training.checkpoint import load_checkpoint, save_checkpoint
from training.encoding import EncodedDataset, Example, encode_all
from training.errors import DivergedError, TrainingError
from training.job import Job, WorkerOutcome
from training.loop import StepReport, TrainingLoop, validate
from training.meeting import meet
from training.objectives import Objective, learnable
from training.parallel import Alone, Collective, ProcessGroup
from training.progress import Progress
from training.setup import adapted_base, objective_of
from training.transport import unpack
from training.validation import Validation

_TELL_EVERY_S = 0.1


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    model: PeftModel
    loop: TrainingLoop
    objective: Objective
    data: EncodedDataset
    validation: EncodedDataset | None


def train_worker(job: Job, *, started: float) -> WorkerOutcome:
    """One worker's part of a run, which began at `started` on `time.perf_counter`.

    Errors that would come again are returned, so that Ray does not retry them; whatever
    else goes wrong is raised, and Ray restarts the workers from the last checkpoint.
    """
    torch.set_num_threads(job.recipe.workers.threads)
    if (device := get_device()).type == "cuda":
        torch.cuda.set_device(device)
    collective = _collective()
    if collective.rank == 0:
        job.board.started.remote()
    prepared, error = _try_to_prepare(job, collective)
    if prepared is None:
        return WorkerOutcome(error=error)
    ready = time.perf_counter()
    try:
        prepared.loop.run(_on_step(job, prepared, collective))
    except DivergedError as diverged:
        # All workers see it at the same step; what befalls one of them is Ray's to repair.
        return WorkerOutcome(error=diverged)
    trained = time.perf_counter()
    return WorkerOutcome(
        losses=tuple(prepared.loop.losses),
        num_tokens=prepared.loop.num_tokens,
        num_truncated=prepared.data.num_truncated,
        num_dropped=prepared.data.num_dropped,
        validation=_validation(job, prepared, collective),
        prepare_s=ready - started,
        train_s=trained - ready,
    )


def _collective() -> Collective:
    if ray.train.get_context().get_world_size() == 1:
        return Alone()
    meet()
    return ProcessGroup()


def _try_to_prepare(
    job: Job, collective: Collective
) -> tuple[_Prepared | None, TrainingError | None]:
    """Prepares this worker and waits for the others; none goes on unless all can."""
    prepared = error = None
    try:
        prepared = _prepare(job, collective)
    except TrainingError as caught:
        error = caught
    num_failed = torch.tensor([0.0 if error is None else 1.0], device=get_device())
    collective.add(num_failed)
    if not float(num_failed):
        # Only now, since sharing the weights needs every worker.
        assert prepared is not None
        prepared.loop.share()
        return prepared, None
    return None, error or TrainingError("A worker on another machine could not prepare.")


def _prepare(job: Job, collective: Collective) -> _Prepared:
    recipe = job.recipe
    device = get_device()
    tokenizer = load_tokenizer(job.base_model)
    examples: list[Example] = ray.get(job.train)
    max_tokens = recipe.data.max_tokens
    data = encode_all(
        examples,
        tokenizer,
        max_tokens=max_tokens,
        with_rejected=recipe.objective.reads_rejected,
    )
    validation = None
    if job.validation is not None:
        held_out: list[Example] = ray.get(job.validation)
        validation = encode_all(held_out, tokenizer, max_tokens=max_tokens, with_rejected=False)
    model = _adapted_base(job, device)
    objective = objective_of(recipe, device=device)
    loop = TrainingLoop(
        model=model,
        dataset=data.examples,
        # Steps are counted by what the objective has a use for.
        settings=recipe.loop_settings(len(learnable(data.examples, recipe.objective.name))),
        collective=collective,
        objective=objective,
    )
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            state = load_checkpoint(Path(folder), model=model, run_digest=job.run_digest)
        loop.load_state_dict(state)
    return _Prepared(model=model, loop=loop, objective=objective, data=data, validation=validation)


def _adapted_base(job: Job, device: torch.device) -> PeftModel:
    if job.parent is None:
        return adapted_base(job.recipe, job.base_model, parent=None, device=device)
    with tempfile.TemporaryDirectory() as folder:
        parent = unpack(job.parent, Path(folder))
        return adapted_base(job.recipe, job.base_model, parent=parent, device=device)


def _on_step(job: Job, prepared: _Prepared, collective: Collective) -> Callable[[StepReport], None]:
    untold: list[Progress] = []
    told_at = time.perf_counter()

    def on_step(report: StepReport) -> None:
        nonlocal told_at
        last = report.step == report.num_steps
        if collective.rank == 0:
            untold.append(_progress(job, report))
            if last or time.perf_counter() - told_at >= _TELL_EVERY_S:
                job.board.tell.remote(list(untold))
                untold.clear()
                told_at = time.perf_counter()
        if last or report.step % job.recipe.workers.checkpoint_every == 0:
            _report_checkpoint(job, prepared, report)

    return on_step


def _progress(job: Job, report: StepReport) -> Progress:
    return Progress(
        step=job.turn * report.num_steps + report.step,
        num_steps=job.recipe.search.num_seeds * report.num_steps,
        loss=report.loss,
        tokens_per_s=report.num_tokens / report.seconds,
        ts=datetime.now(UTC),
    )


def _report_checkpoint(job: Job, prepared: _Prepared, report: StepReport) -> None:
    """Every worker must call this; rank 0 brings the checkpoint."""
    metrics = {"step": report.step, "loss": report.loss}
    if ray.train.get_context().get_world_rank() != 0:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "checkpoint"
        save_checkpoint(
            folder,
            model=prepared.model,
            state=prepared.loop.state_dict(),
            base_id=job.base_model,
            run_digest=job.run_digest,
        )
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


def _validation(job: Job, prepared: _Prepared, collective: Collective) -> Validation | None:
    if prepared.validation is None:
        return None
    return validate(
        prepared.model,
        prepared.validation.examples,
        # Who shares a base computes as often as the others: all of it, each.
        collective=Alone() if job.recipe.workers.shard_base else collective,
        objective=prepared.objective,
    )
