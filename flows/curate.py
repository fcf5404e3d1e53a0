"""Curation: what people said since the last pass becomes training data."""

from __future__ import annotations

from prefect import flow

from flows.context import Context, open_context
from flows.curation.pipeline import CurationReport
from flows.curation.pipeline import curate as curate_new
from flows.prefect_steps import PrefectSteps
from flows.reports.tables import curation_table
from flows.signals import run_scoring, run_watch
from flows.steps import Steps


def run_curate(
    context: Context, *, workload: str, dry_run: bool = False, steps: Steps
) -> CurationReport:
    """Curate what is new. A repetition changes nothing, so it may be retried."""
    if not dry_run:
        run_watch(context, workload=workload, steps=steps)
    report = steps.run(
        "curate",
        lambda: curate_new(
            context.database,
            workload=workload,
            settings=context.settings.curation,
            clock=context.clock,
            new_id=context.new_id,
            dry_run=dry_run,
        ),
        retries=2,
    )
    steps.table("curation", curation_table(report))
    return report


@flow(name="curate")
def curate(workload: str = "default", dry_run: bool = False) -> None:
    """New interactions with feedback → curated training data, with a report.

    Then the quality scorer is fitted on what people said, and answers are picked for review.
    """
    context, steps = open_context(), PrefectSteps()
    run_curate(context, workload=workload, dry_run=dry_run, steps=steps)
    if not dry_run:
        run_scoring(context, workload=workload, steps=steps)
