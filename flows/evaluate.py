"""Evaluation: the champion, the versions before it and the base on the same questions."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prefect import State, flow

from flows.context import Context, open_context
from flows.curation.dataset import BuiltDataset, build_dataset
from flows.each_workload import End, chosen, in_turn
from flows.errors import RefusedError
from flows.learner import FEW_SHOT, Learner
from flows.manifest import is_of_base
from flows.prefect_steps import PrefectSteps, completed
from flows.ray_learner import RayLearner
from flows.reports.html import Row, evaluation_page, notes, plots
from flows.reports.plots import data_uri
from flows.reports.tables import evaluation_table
from flows.steps import Steps, StepsFor
from registry import deployment, versions
from registry.errors import ArtifactError
from registry.models import ModelVersion
from training.evaluation.frozen import join_suites

BASE = "base"
NUM_PREVIOUS = 3
"""Versions in the report besides the champion."""


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """The versions oldest first, the base before all, and where the page is."""

    rows: tuple[Row, ...]
    asked: str
    """What the questions were."""
    page: Path


@dataclass(frozen=True, kw_only=True)
class Questions:
    """What all versions are asked."""

    file: Path
    shots: Path | None
    """Training samples, as examples for the base's prompt; None where there are none."""
    told: str


def run_evaluate(
    context: Context, learner: Learner, *, workload: str, steps: Steps
) -> EvaluationReport:
    """Evaluate, and keep the report as artifacts and as a page in the home's `reports`.

    The questions are those of the frozen suites (setting `training.suites`), whose scores can be
    compared from month to month; without any, the held-out samples of the newest dataset.
    Raises `RefusedError` where there is neither.
    """
    folder = context.folder("runs", f"evaluate-{context.new_id()}")
    try:
        questions = steps.run(
            "build-dataset",
            lambda: _questions(context, folder, workload=workload),
            retries=2,
        )
        chosen = _versions(context, learner, workload=workload)
        adapters: dict[str, Path | None] = {BASE: None}
        for row in chosen:
            adapters[row.version] = context.store.fetch(row.adapter_digest)
        results = steps.run(
            "evaluate",
            lambda: learner.evaluate(adapters, data=questions.file, shots=questions.shots),
            retries=1,
        )
    finally:
        shutil.rmtree(folder)
    rows = (
        *(
            Row(version=arm, standing="base", parent=None, evaluated=results[arm])
            for arm in (BASE, FEW_SHOT)
            if arm in results
        ),
        *(
            Row(
                version=row.version,
                standing=row.deployment_status,
                parent=row.parent_version or BASE,
                evaluated=results[row.version],
                made=row.created_at,
            )
            for row in chosen
        ),
    )
    return _report(context, rows, questions.told, workload=workload, steps=steps)


def _questions(context: Context, folder: Path, *, workload: str) -> Questions:
    dataset = _dataset(context, folder / "dataset", workload=workload)
    shots = dataset.train_file if dataset.num_train else None
    suites = context.settings.training.suites
    if suites:
        return Questions(
            file=join_suites(suites, folder / "suites.jsonl"),
            shots=shots,
            told=f"frozen suites {', '.join(path.stem for path in suites)}",
        )
    if not dataset.num_validation:
        raise RefusedError(f"workload '{workload}' has no held-out sample to evaluate on yet")
    return Questions(
        file=dataset.validation_file,
        shots=shots,
        told=f"held-out samples of dataset {dataset.dataset_id}, which differ from month to month: "
        "freeze a suite (setting training.suites) to compare months",
    )


def _dataset(context: Context, folder: Path, *, workload: str) -> BuiltDataset:
    shutil.rmtree(folder, ignore_errors=True)
    return build_dataset(
        context.database,
        context.store,
        workload=workload,
        settings=context.settings.curation,
        keyring=context.keyring,
        folder=folder,
        clock=context.clock,
        new_id=context.new_id,
    )


def _versions(context: Context, learner: Learner, *, workload: str) -> list[ModelVersion]:
    """The champion and the latest versions that met people, of this base, oldest first."""
    with context.database.read() as session:
        champion = deployment.desired(session, workload).champion
        known = versions.list_versions(session, workload=workload)
    of_base = [
        row
        for row in known
        if row.deployed_at
        and row.adapter_deleted_at is None
        and _is_of_base(context, row, learner.base_model)
    ]
    name = None if champion is None else champion.version
    others = [row for row in of_base if row.version != name][:NUM_PREVIOUS]
    chosen = [row for row in of_base if row.version == name] + others
    return sorted(chosen, key=lambda row: (row.created_at, row.version))


def _is_of_base(context: Context, row: ModelVersion, base_model: str) -> bool:
    if row.base_model == base_model:
        return True
    try:
        adapter = context.store.fetch(row.adapter_digest)
    except ArtifactError:  # of another installation's store, perhaps: it cannot be asked
        return False
    return is_of_base(adapter, row.base_model, base_model)


def _report(
    context: Context, rows: Sequence[Row], asked: str, *, workload: str, steps: Steps
) -> EvaluationReport:
    now = context.clock()
    results = {row.version: row.evaluated for row in rows}
    told = "\n\n".join([asked, *notes(rows), evaluation_table(results)])
    steps.table("evaluation", f"# Evaluation of {workload}\n\n{told}\n")
    pictures = plots(rows)
    for key, title, png in pictures:
        steps.image(key, data_uri(png), title)
    page = context.folder("reports") / f"evaluation-{workload}-{now:%Y%m%d-%H%M%S}.html"
    temporary = page.with_suffix(".tmp")
    temporary.write_text(
        evaluation_page(rows, workload=workload, asked=asked, now=now, pictures=pictures),
        encoding="utf-8",
    )
    os.replace(temporary, page)
    return EvaluationReport(rows=tuple(rows), asked=asked, page=page)


def evaluate_each(
    context: Context, learner: Learner, workload: str | None, *, steps_for: StepsFor
) -> End:
    """Evaluate the workload, or each one."""

    def turn(name: str) -> End:
        report = run_evaluate(context, learner, workload=name, steps=steps_for(name))
        return End(f"report: {report.page}")

    return in_turn(chosen(context, workload), turn)


@flow(name="evaluate")
def evaluate(workload: str | None = None) -> State[None]:
    """The full suite on champion, previous versions and base, with plots and a page.

    `workload` None: each one.
    """
    context = open_context()
    learner = RayLearner(context.settings)
    return completed(evaluate_each(context, learner, workload, steps_for=PrefectSteps))
