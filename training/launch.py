"""Launches a training run on Ray: files and a recipe in, an adapter and its figures out.

    python -m training.launch --recipe tiny_cpu --data train.jsonl --out adapter

The caller has initialised Ray. A run that is launched again under the same id and
storage goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, TrainingFailedError

from training.config import Recipe, WorkersRecipe, load_recipe
from training.encoding import judged_by, read_examples
from training.errors import DataError, DivergedError, RunFailedError, TrainingError
from training.evaluation.frozen import without_suites
from training.job import Job, WorkerOutcome, work
from training.progress import Listener, Progress
from training.search import Trial, find_recipe
from training.storage import open_storage
from training.trainer import SharedDevicesConfig, WorkerTrainer
from training.transport import ADAPTER_NAME, Packed, pack, place, refuse_other_content
from training.validation import Validation

logger = logging.getLogger(__name__)

_HEALTH_CHECK_S = "0.2"
_Run = tuple[WorkerOutcome, ray.train.Checkpoint]


@dataclass(frozen=True, kw_only=True)
class TrainingOutcome:
    """What a finished run made and took; of several seeds' runs, what the best one did."""

    adapter_dir: Path
    """A PEFT adapter that names its base by id."""
    num_steps: int
    losses: list[float]
    """Of every step, in nats per learned token."""
    num_tokens: int
    """Learned tokens seen, over all workers."""
    num_truncated: int
    """Examples whose prompt lost its beginning."""
    num_dropped: int
    """Examples left out, such as for answers that are too long or empty."""
    num_held_back: int
    """Examples left out for being near to a question of a frozen suite."""
    validation: Validation | None
    """None without a validation file."""
    num_failures: int | None
    """How often workers were lost and replaced; None when the count was lost too."""
    seconds: float
    """All runs together, as the launcher saw them."""
    prepare_s: float
    """Of it, importing, loading and encoding in the workers."""
    train_s: float
    """Of it, the loop in the last group of workers, checkpoints included."""
    seeds: tuple[SeedRun, ...]
    """What every seed came to; the best one's adapter was kept."""
    trials: tuple[Trial, ...]
    """What was tried before; the recipe's own settings first, and none without a search."""

    @property
    def validation_loss(self) -> float | None:
        """Nats per learned token; None without a validation file."""
        return None if self.validation is None else self.validation.loss


@dataclass(frozen=True, kw_only=True)
class SeedRun:
    """One seed's run."""

    seed: int
    validation: Validation | None
    diverged: str | None = None
    """Why it has left no adapter; None where it has left one."""


def train(
    *,
    run_id: str,
    train_file: Path,
    validation_file: Path | None,
    recipe: Recipe,
    base_model: str,
    parent_adapter: Path | None,
    output_dir: Path,
    storage_path: str,
    on_progress: Callable[[Progress], None] | None = None,
    suites: Sequence[Path] = (),
) -> TrainingOutcome:
    """Trains an adapter on Ray and puts it in `output_dir`, replacing an adapter that was there.

    Where the recipe says so, settings are searched for first, and several seeds are trained
    in turn, each with all the recipe's workers; those that diverge are left out.
    `storage_path` is a folder or URL that all machines of the cluster see; checkpoints go to
    `storage_path/run_id`. `on_progress` is called in a thread of this process; what it raises
    is raised here once the run has ended. What is near to a question of `suites`, which are
    frozen, is not learned. Raises a TrainingError.
    """
    started = time.perf_counter()
    refuse_other_content(output_dir)
    train_examples, held_back = without_suites(read_examples(train_file), suites)
    validation = None if validation_file is None else judged_by(read_examples(validation_file))
    if validation is None and (recipe.search.num_trials or recipe.search.num_seeds > 1):
        raise DataError("To choose among trials or seeds takes a validation file.")
    parent = None if parent_adapter is None else pack(parent_adapter)
    with Listener(on_progress) as listener:
        job = Job(
            recipe=recipe,
            base_model=base_model,
            train=ray.put(train_examples),
            validation=None if validation is None else ray.put(validation),
            parent=parent,
            run_digest=_run_digest(recipe, base_model, [train_file, *suites], parent),
            board=listener.board,
        )
        found = find_recipe(job, run_id=run_id, storage_path=storage_path)
        seeds, runs = _train_seeds(job, found.recipe, run_id=run_id, storage_path=storage_path)
        outcome, adapter = min(runs, key=_score)
        with adapter.as_directory() as folder:
            place(Path(folder) / ADAPTER_NAME, output_dir)
        num_failures = listener.num_failures(num_runs=len(seeds))
    return TrainingOutcome(
        adapter_dir=output_dir,
        num_steps=len(outcome.losses),
        losses=list(outcome.losses),
        num_tokens=outcome.num_tokens,
        num_truncated=outcome.num_truncated,
        num_dropped=outcome.num_dropped,
        num_held_back=len(held_back),
        validation=outcome.validation,
        num_failures=num_failures,
        seconds=time.perf_counter() - started,
        prepare_s=sum(run.prepare_s for run, _ in runs),
        train_s=sum(run.train_s for run, _ in runs),
        seeds=tuple(seeds),
        trials=found.trials,
    )


def _train_seeds(
    job: Job, recipe: Recipe, *, run_id: str, storage_path: str
) -> tuple[list[SeedRun], list[_Run]]:
    """What every seed came to, and the runs of those that did not diverge.

    DivergedError where all of them did: one that does must not cost what the others learned.
    """
    seeds: list[SeedRun] = []
    runs: list[_Run] = []
    num_seeds = recipe.search.num_seeds
    for turn in range(num_seeds):
        seeded = recipe.model_copy(update={"seed": recipe.seed + turn})
        name = run_id if num_seeds == 1 else f"{run_id}-seed{seeded.seed}"
        own = replace(
            job, recipe=seeded, turn=turn, run_digest=f"{job.run_digest} {seeded.digest()}"
        )
        try:
            run = _fit(own, run_id=name, storage_path=storage_path)
        except DivergedError as error:
            logger.warning("seed %d diverged: %s", seeded.seed, error)
            seeds.append(SeedRun(seed=seeded.seed, validation=None, diverged=str(error)))
            if len(seeds) == num_seeds and not runs:
                raise
        else:
            seeds.append(SeedRun(seed=seeded.seed, validation=run[0].validation))
            runs.append(run)
    return seeds, runs


def _score(run: _Run) -> float:
    validation = run[0].validation
    return math.inf if validation is None else validation.score


def _fit(job: Job, *, run_id: str, storage_path: str) -> _Run:
    workers = job.recipe.workers
    path, filesystem = open_storage(storage_path)
    use_gpu = workers.gpus_per_worker > 0
    resources = {"CPU": workers.cpus_per_worker, "GPU": float(workers.gpus_per_worker)}
    # Ray's declarations are those of Train V1; what runs is V2, which returns a value.
    trainer: Any = WorkerTrainer(
        work,
        # By reference: Ray Train's controller unpacks this too, and needs none of it.
        train_loop_config={"job": ray.put(job)},
        backend_config=SharedDevicesConfig(),
        scaling_config=ScalingConfig(
            num_workers=_num_workers(workers),  # type: ignore[arg-type]
            use_gpu=use_gpu,
            resources_per_worker=resources,
        ),
        run_config=RunConfig(
            name=run_id,
            storage_path=path,
            storage_filesystem=filesystem,
            checkpoint_config=CheckpointConfig(num_to_keep=workers.keep_checkpoints),
            failure_config=FailureConfig(  # type: ignore[call-arg]
                max_failures=workers.max_failures,
                # Without a limit a run that Ray cannot place waits for ever.
                controller_failure_limit=workers.max_failures,
            ),
        ),
    )
    variables = {
        # On a single node the watcher for nodes about to go has nobody left to tell.
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": _flag(_num_nodes() > 1),
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": _HEALTH_CHECK_S,
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(workers.start_timeout_s),
    }
    try:
        with _environment(variables), _own_interrupt_handler():
            result = trainer.fit()
    except TrainingFailedError as error:
        raise RunFailedError(f"Run {run_id}: {_reason(error)}{_missing(workers)}") from error
    outcome = result.return_value
    assert isinstance(outcome, WorkerOutcome)
    if outcome.error is not None:
        raise outcome.error
    assert result.checkpoint is not None
    return outcome, result.checkpoint


def _num_workers(workers: WorkersRecipe) -> int | tuple[int, int]:
    if workers.min_workers is None:
        return workers.num_workers
    return workers.min_workers, workers.num_workers


def _num_nodes() -> int:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return sum(bool(node["Alive"]) for node in nodes)


def _flag(value: bool) -> str:
    return "1" if value else "0"


def _reason(error: TrainingFailedError) -> str:
    """The last line that says something: Ray's text holds the workers' whole tracebacks."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{lines[0]} {lines[-1]}" if len(lines) > 1 else lines[0]


def _missing(workers: WorkersRecipe) -> str:
    """What the recipe asks for and the cluster does not have, as a sentence; else empty."""
    wanted = workers.gpus_per_worker * (workers.min_workers or workers.num_workers)
    there = ray.cluster_resources().get("GPU", 0.0)  # type: ignore[no-untyped-call]
    if there >= wanted:
        return ""
    return (
        f" The recipe asks for {wanted} GPUs and Ray has {there:g}: choose another recipe "
        "(setting training.recipe), or tell Ray of them."
    )


def _run_digest(recipe: Recipe, base_model: str, files: list[Path], parent: Packed | None) -> str:
    digest = hashlib.sha256(f"{recipe.digest()}\0{base_model}".encode())
    for content in [*(file.read_bytes() for file in files), *(parent or {}).values()]:
        digest.update(hashlib.sha256(content).digest())
    return f"sha256:{digest.hexdigest()}"


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Ray Train reads its settings from the launcher's environment; the user's own win."""
    added = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


@contextmanager
def _own_interrupt_handler() -> Iterator[None]:
    """Ray Train replaces the handler of Ctrl-C and leaves its own behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _main() -> None:
    try:
        _run_command()
    except TrainingError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)


def _run_command() -> None:
    parser = argparse.ArgumentParser(description="Train an adapter from a JSONL file.")
    parser.add_argument("--recipe", default="tiny_cpu", help="name of a recipe, or a path")
    parser.add_argument("--base", default="embedded", help="base model: embedded, an id or a path")
    parser.add_argument("--data", type=Path, required=True, help="training examples, JSONL")
    parser.add_argument("--validation", type=Path, help="held-out examples, JSONL")
    parser.add_argument("--parent", type=Path, help="adapter to continue from")
    parser.add_argument("--out", type=Path, required=True, help="folder for the adapter")
    arguments = parser.parse_args()
    out = arguments.out.resolve()  # "." has no name to put checkpoints beside
    # What is wrong is told before Ray has started.
    recipe = load_recipe(arguments.recipe)
    read_examples(arguments.data)
    refuse_other_content(out)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    ray.init(include_dashboard=False, log_to_driver=False)
    outcome = train(
        run_id=f"{out.name}-{time.strftime('%Y%m%d-%H%M%S')}",
        train_file=arguments.data,
        validation_file=arguments.validation,
        recipe=recipe,
        base_model=arguments.base,
        parent_adapter=arguments.parent,
        output_dir=out,
        storage_path=str(out.with_name(f"{out.name}-runs")),
        on_progress=lambda progress: logger.info(
            "step %d/%d  loss %.3f", progress.step, progress.num_steps, progress.loss
        ),
    )
    logger.info(
        "%s: loss %.3f → %.3f in %.1f s (%.1f s loading, %.1f s training)",
        outcome.adapter_dir,
        outcome.losses[0],
        outcome.losses[-1],
        outcome.seconds,
        outcome.prepare_s,
        outcome.train_s,
    )


if __name__ == "__main__":
    _main()
