"""Retraining: dataset → training → evaluation → gate → register → trial.

One run at a time per workload (a database constraint). A run that ends leaves a status and
a reason; what it made becomes visible in one transaction, or not at all.
"""

from __future__ import annotations

import logging
import shutil
from datetime import datetime
from pathlib import Path

from prefect import State, flow
from prefect.runtime import flow_run
from sqlmodel import Session

from flows import trail
from flows.context import Context, open_context
from flows.curate import curate_here
from flows.curation.dataset import BuiltDataset, build_dataset
from flows.decisions import gate
from flows.each_workload import End, chosen, in_turn
from flows.errors import RefusedError
from flows.heartbeat import heartbeat
from flows.learner import Learner
from flows.manifest import is_of_base, write_manifest
from flows.prefect_steps import PrefectSteps, completed
from flows.ray_learner import RayLearner
from flows.registration import (
    ACTOR,
    CANDIDATE,
    INCUMBENT,
    Candidate,
    RetrainResult,
    beside_few_shot,
    register,
)
from flows.reports.plots import data_uri, loss_plot
from flows.reports.tables import dataset_table, retrain_table
from flows.signals import run_watch
from flows.steps import PlainSteps, Steps, StepsFor
from registry import deployment, erasure, runs, versions
from registry.deployment import LiveVersion
from registry.errors import ConflictError

logger = logging.getLogger(__name__)


def run_retrain(
    context: Context,
    learner: Learner,
    *,
    workload: str,
    trigger: str = "manual",
    force: bool = False,
    dry_run: bool = False,
    steps: Steps | None = None,
    flow_run_id: str | None = None,
    asked_at: datetime | None = None,
) -> RetrainResult:
    """Train a version on what was curated and put it where the gate's verdict says.

    `force` trains again on a dataset that was learned already; `dry_run` only prepares the
    data. Raises `BusyError` while another run of the workload is under way, and `RefusedError`
    where one has begun since this one was `asked_at`; whatever else fails marks the run failed
    before it is raised.
    """
    steps = steps or PlainSteps()
    if dry_run:
        return _prepare(context, workload=workload, steps=steps)
    if asked_at is not None and not force:
        _refuse_what_was_done(context, asked_at, workload=workload)
    run_id = _open_run(context, steps, workload=workload, trigger=trigger, flow_run_id=flow_run_id)
    folder = context.folder("runs", run_id)
    try:
        with heartbeat(context, run_id):
            result = _run(
                context, learner, run_id, folder=folder, workload=workload, force=force, steps=steps
            )
    except RefusedError as refusal:
        result = RetrainResult(status="refused", reason=str(refusal), run_id=run_id)
        _close_run(context, run_id, status="refused", reason=str(refusal))
    except BaseException as error:
        # A cancelled flow raises no Exception, and must not leave a run that looks alive.
        _fail_run(context, run_id, error)
        raise
    shutil.rmtree(folder)
    steps.table("retrain", retrain_table(result))
    return result


def _open_run(
    context: Context, steps: Steps, *, workload: str, trigger: str, flow_run_id: str | None
) -> str:
    run_id = context.new_id()
    with context.database.write() as session:
        dead = trail.reap_trainings(context, session)
    for run in dead:
        steps.abandoned(run)
    with context.database.write() as session:
        runs.start(
            session,
            run_id=run_id,
            workload=workload,
            trigger=trigger,
            now=context.clock(),
            flow_run_id=flow_run_id,
        )
        trail.training_started(
            context, session, run_id, actor=ACTOR, workload=workload, trigger=trigger
        )
    return run_id


def _close_run(context: Context, run_id: str, *, status: str, reason: str) -> None:
    with context.database.write() as session:
        runs.finish(session, run_id, status=status, reason=reason, now=context.clock())
        trail.training_ended(context, session, run_id, actor=ACTOR, status=status, reason=reason)


def _fail_run(context: Context, run_id: str, error: BaseException) -> None:
    try:
        _close_run(context, run_id, status="failed", reason=_why_failed(error))
    except ConflictError as closed:
        # It was reaped while it hung: the reason stored then stands.
        logger.warning("%s", closed)


def _why_failed(error: BaseException) -> str:
    if isinstance(error, Exception):
        return str(error) or type(error).__name__
    return (
        f"stopped from outside ({type(error).__name__}), as by a cancellation: its work on Ray "
        "was stopped with it, and nothing was registered"
    )


def _prepare(context: Context, *, workload: str, steps: Steps) -> RetrainResult:
    folder = context.folder("runs", f"dry-{context.new_id()}")
    try:
        dataset = _dataset(context, folder, workload=workload, steps=steps)
    finally:
        shutil.rmtree(folder)
    return RetrainResult(
        status="prepared",
        reason=f"{dataset.num_train} training and {dataset.num_validation} validation samples; "
        "nothing was trained",
        dataset_id=dataset.dataset_id,
    )


def _run(
    context: Context,
    learner: Learner,
    run_id: str,
    *,
    folder: Path,
    workload: str,
    force: bool,
    steps: Steps,
) -> RetrainResult:
    dataset = _dataset(context, folder, workload=workload, steps=steps)
    _refuse_what_cannot_teach(context, dataset, workload=workload, force=force)
    with context.database.read() as session:
        champion = deployment.desired(session, workload).champion
    parent = _parent(context, learner, champion)
    start = None if parent is None else context.store.fetch(parent.adapter_digest)
    trained = steps.run(
        "train",
        lambda: learner.train(
            run_id=run_id,
            train_file=dataset.train_file
            if learner.objective == "sft"
            else dataset.preference_file,
            validation_file=dataset.validation_file,
            parent=start,
            folder=folder / "training",
            progress=steps.progress,
        ),
    )
    if trained.losses:
        steps.image("training-loss", data_uri(loss_plot(trained.losses)), "Training loss by step")
    evaluated = steps.run(
        "evaluate",
        lambda: learner.evaluate(
            {INCUMBENT: start, CANDIDATE: trained.adapter},
            data=dataset.validation_file,
            shots=dataset.train_file,
        ),
        retries=1,
    )
    verdict = beside_few_shot(
        gate.decide(
            evaluated[INCUMBENT].scores, evaluated[CANDIDATE].scores, context.settings.gate
        ),
        evaluated,
    )
    write_manifest(
        trained.adapter,
        base_model=learner.base_model,
        base_digest=trained.base_digest,
        recipe=learner.recipe,
        dataset_digest=dataset.digest,
        metrics=dict(evaluated[CANDIDATE].metrics),
        created_at=context.clock(),
    )
    digest = steps.run("publish", lambda: context.store.publish(trained.adapter), retries=2)
    candidate = Candidate(
        champion=champion,
        parent=parent,
        dataset=dataset,
        trained=trained,
        evaluated=evaluated,
        verdict=verdict,
        digest=digest,
    )
    return steps.run(
        "register", lambda: register(context, learner, run_id, candidate, workload=workload)
    )


def _dataset(context: Context, folder: Path, *, workload: str, steps: Steps) -> BuiltDataset:
    """Curate what is new, then build. Both change nothing where there is nothing new."""
    settings = context.settings.curation
    run_watch(context, workload=workload, steps=steps)
    steps.run("curate", lambda: curate_here(context, workload=workload), retries=2)

    def build() -> BuiltDataset:
        target = folder / "dataset"
        shutil.rmtree(target, ignore_errors=True)
        return build_dataset(
            context.database,
            context.store,
            workload=workload,
            settings=settings,
            keyring=context.keyring,
            folder=target,
            clock=context.clock,
            new_id=context.new_id,
        )

    dataset = steps.run("build-dataset", build, retries=2)
    steps.table("dataset", dataset_table(dataset))
    return dataset


def _refuse_what_was_done(context: Context, asked_at: datetime, *, workload: str) -> None:
    """Triggers fire again while what they have asked for waits for another workload's training."""
    with context.database.read() as session:
        last = runs.last(session, workload=workload)
    if last is not None and last.started_at >= asked_at:
        raise RefusedError(
            f"run {last.id} has trained since this was asked for, at {asked_at:%Y-%m-%d %H:%M} UTC "
            "(--force trains again)"
        )


def _refuse_what_cannot_teach(
    context: Context, dataset: BuiltDataset, *, workload: str, force: bool
) -> None:
    needed = context.settings.training.min_samples
    if dataset.num_samples < needed:
        raise RefusedError(
            f"too little data: {dataset.num_samples} samples, at least {needed} are needed "
            "(setting training.min_samples)"
        )
    if not dataset.num_train or not dataset.num_validation:
        raise RefusedError(
            f"{dataset.num_train} samples to train on and {dataset.num_validation} to validate "
            "with: both are needed (setting curation.validation_share)"
        )
    with context.database.read() as session:
        last = runs.last(session, workload=workload)
    if last is not None and last.dataset_id == dataset.dataset_id and not force:
        raise RefusedError(
            f"nothing new to learn: run {last.id} has already trained on dataset "
            f"{dataset.dataset_id} (--force trains again)"
        )


def _parent(context: Context, learner: Learner, champion: LiveVersion | None) -> LiveVersion | None:
    """Whose adapter training goes on from: the champion's; None where the base serves."""
    if champion is None:
        return None
    with context.database.read() as session:
        if context.settings.privacy.erased_versions != "list":
            champion = _untouched(session, champion)
        if champion is None:
            return None
        base = versions.get(session, champion.version).base_model
    adapter = context.store.fetch(champion.adapter_digest)
    if not is_of_base(adapter, base, learner.base_model):
        logger.warning(
            "champion %s is of base %s, not %s: training starts from the new base",
            champion.version,
            base,
            learner.base_model,
        )
        return None
    return champion


def _untouched(session: Session, champion: LiveVersion) -> LiveVersion | None:
    """The champion, or who came before it, that learned from nothing that was erased since."""
    name = erasure.untouched_ancestor(session, champion.version)
    return None if name is None else LiveVersion(name, versions.get(session, name).adapter_digest)


def retrain_each(
    context: Context,
    learner: Learner,
    workload: str | None,
    *,
    trigger: str = "manual",
    force: bool = False,
    dry_run: bool = False,
    steps_for: StepsFor,
    flow_run_id: str | None = None,
    asked_at: datetime | None = None,
) -> End:
    """Train a version of the workload, or of each one, unless that was done since `asked_at`."""

    def turn(name: str) -> End:
        result = run_retrain(
            context,
            learner,
            workload=name,
            trigger=trigger,
            force=force,
            dry_run=dry_run,
            steps=steps_for(name),
            flow_run_id=flow_run_id,
            asked_at=asked_at,
        )
        # Refused and rejected are ends as good as any: the name tells them apart.
        return End(result.reason, result.status.capitalize())

    return in_turn(chosen(context, workload), turn)


@flow(name="retrain")
def retrain(
    workload: str | None = None,
    trigger: str = "manual",
    force: bool = False,
    dry_run: bool = False,
) -> State[None]:
    """Dataset → Ray Train → evaluation → gate → register → trial.

    `workload` None: each one. `force` trains again on data that was learned already; `dry_run`
    only prepares the data.
    """
    context = open_context()
    end = retrain_each(
        context,
        RayLearner(context.settings),
        workload,
        trigger=trigger,
        force=force,
        dry_run=dry_run,
        steps_for=PrefectSteps,
        flow_run_id=flow_run.get_id(),
        asked_at=flow_run.get_scheduled_start_time(),
    )
    return completed(end)
