"""Evaluation: the champion, the versions before it and the base on the same held-out samples."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prefect import flow

from flows.context import Context, open_context
from flows.curation.dataset import BuiltDataset, build_dataset
from flows.errors import RefusedError
from flows.learner import FEW_SHOT, Learner
from flows.prefect_steps import PrefectSteps
from flows.ray_learner import RayLearner
from flows.reports.forgetting import forgetting_plot
from flows.reports.html import Row, evaluation_page
from flows.reports.plots import data_uri, tools_plot, versions_plot
from flows.reports.tables import evaluation_table
from flows.steps import Steps
from registry import deployment, versions
from registry.models import ModelVersion

BASE = "base"
NUM_PREVIOUS = 3
"""Versions in the report besides the champion."""


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """The versions oldest first, the base before all, and where the page is."""

    rows: tuple[Row, ...]
    dataset_id: str
    page: Path


def run_evaluate(
    context: Context, learner: Learner, *, workload: str, steps: Steps
) -> EvaluationReport:
    """Evaluate, and keep the report as artifacts and as a page in the home's `reports`.

    Raises `RefusedError` where the workload has no held-out sample yet.
    """
    folder = context.folder("runs", f"evaluate-{context.new_id()}")
    try:
        dataset = steps.run(
            "build-dataset",
            lambda: _held_out(context, folder / "dataset", workload=workload),
            retries=2,
        )
        chosen = _versions(context, learner, workload=workload)
        adapters: dict[str, Path | None] = {BASE: None}
        for row in chosen:
            adapters[row.version] = context.store.fetch(row.adapter_digest)
        results = steps.run(
            "evaluate",
            lambda: learner.evaluate(
                adapters, data=dataset.validation_file, shots=dataset.train_file
            ),
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
            )
            for row in chosen
        ),
    )
    return _report(context, rows, dataset.dataset_id, workload=workload, steps=steps)


def _held_out(context: Context, folder: Path, *, workload: str) -> BuiltDataset:
    shutil.rmtree(folder, ignore_errors=True)
    dataset = build_dataset(
        context.database,
        context.store,
        workload=workload,
        settings=context.settings.curation,
        keyring=context.keyring,
        folder=folder,
        clock=context.clock,
        new_id=context.new_id,
    )
    if not dataset.num_validation:
        raise RefusedError(f"workload '{workload}' has no held-out sample to evaluate on yet")
    return dataset


def _versions(context: Context, learner: Learner, *, workload: str) -> list[ModelVersion]:
    """The champion and the latest versions that met people, of this base, oldest first."""
    with context.database.read() as session:
        champion = deployment.desired(session, workload).champion
        known = versions.list_versions(session, workload=workload)
    of_base = [
        row
        for row in known
        if row.base_model == learner.base_model
        and row.deployed_at
        and row.adapter_deleted_at is None
    ]
    name = None if champion is None else champion.version
    others = [row for row in of_base if row.version != name][:NUM_PREVIOUS]
    chosen = [row for row in of_base if row.version == name] + others
    return sorted(chosen, key=lambda row: (row.created_at, row.version))


def _report(
    context: Context, rows: Sequence[Row], dataset_id: str, *, workload: str, steps: Steps
) -> EvaluationReport:
    now = context.clock()
    results = {row.version: row.evaluated for row in rows}
    steps.table("evaluation", f"# Evaluation of {workload}\n\n{evaluation_table(results)}\n")
    for key, png, title in (
        ("evaluation-versions", versions_plot(results), "Accuracy of each version"),
        ("evaluation-tools", tools_plot(results), "Accuracy by target tool"),
        ("evaluation-forgetting", forgetting_plot(results), "Accuracy against the best before"),
    ):
        steps.image(key, data_uri(png), title)
    page = context.folder("reports") / f"evaluation-{workload}-{now:%Y%m%d-%H%M%S}.html"
    temporary = page.with_suffix(".tmp")
    temporary.write_text(
        evaluation_page(rows, workload=workload, dataset_id=dataset_id, now=now), encoding="utf-8"
    )
    os.replace(temporary, page)
    return EvaluationReport(rows=tuple(rows), dataset_id=dataset_id, page=page)


@flow(name="evaluate")
def evaluate(workload: str = "default") -> None:
    """The full suite on champion, previous versions and base, with plots and a page."""
    context = open_context()
    run_evaluate(context, RayLearner(context.settings), workload=workload, steps=PrefectSteps())
