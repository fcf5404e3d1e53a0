"""Curation: what people said since the last pass becomes training data."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from prefect import State, flow

from flows.context import Context, open_context
from flows.curation.engine import Engine, LocalEngine, usual_workers
from flows.curation.pipeline import CurationReport
from flows.curation.pipeline import curate as curate_new
from flows.each_workload import End, chosen, in_turn
from flows.prefect_steps import PrefectSteps, completed
from flows.reports.curation import plots, write_page
from flows.reports.plots import data_uri
from flows.reports.tables import curation_table
from flows.runtime import ray_session
from flows.signals import run_scoring, run_watch
from flows.steps import Steps, StepsFor

EngineName = Literal["local", "ray"]


def run_curate(
    context: Context,
    *,
    workload: str,
    dry_run: bool = False,
    engine: EngineName = "local",
    steps: Steps,
) -> CurationReport:
    """Curate what is new. A repetition changes nothing, so it may be retried."""
    if not dry_run:
        run_watch(context, workload=workload, steps=steps)

    def there() -> CurationReport:
        from flows.curation.ray_engine import RayEngine

        with ray_session(context.settings):
            return _curate(context, RayEngine(), workload=workload, dry_run=dry_run)

    def here() -> CurationReport:
        return curate_here(context, workload=workload, dry_run=dry_run)

    report = steps.run("curate", there if engine == "ray" else here, retries=2)
    steps.table("curation", curation_table(report))
    return report


def curate_here(context: Context, *, workload: str, dry_run: bool = False) -> CurationReport:
    """Curate on the cores of this machine."""
    num_workers = context.settings.curation.num_workers
    if num_workers is None:
        num_workers = usual_workers()
    with LocalEngine(num_workers=num_workers) as engine:
        return _curate(context, engine, workload=workload, dry_run=dry_run)


def _curate(context: Context, engine: Engine, *, workload: str, dry_run: bool) -> CurationReport:
    return curate_new(
        context.database,
        workload=workload,
        settings=context.settings.curation,
        keyring=context.keyring,
        clock=context.clock,
        new_id=context.new_id,
        dry_run=dry_run,
        engine=engine,
    )


def show(context: Context, report: CurationReport, steps: Steps) -> Path:
    """Write the page of a pass and show its plots; where the page is."""
    for number, (title, image) in enumerate(plots(report)):
        steps.image(f"curation-{number}", data_uri(image), title)
    return write_page(report, context.folder("reports"), now=context.clock())


def curate_each(
    context: Context,
    workload: str | None,
    *,
    dry_run: bool = False,
    engine: EngineName = "local",
    steps_for: StepsFor,
) -> End:
    """Curate the workload, or each one, write its page and look at what was said."""

    def turn(name: str) -> End:
        steps = steps_for(name)
        report = run_curate(context, workload=name, dry_run=dry_run, engine=engine, steps=steps)
        show(context, report, steps)
        if not dry_run:
            run_scoring(context, workload=name, steps=steps)
        return End(f"{report.num_added} samples added, {report.num_withdrawn} withdrawn")

    return in_turn(chosen(context, workload), turn)


@flow(name="curate")
def curate(
    workload: str | None = None, dry_run: bool = False, engine: EngineName = "local"
) -> State[None]:
    """New interactions with feedback → curated training data, with a report.

    Then the quality scorer is fitted on what people said, and answers are picked for review.
    `workload` None: each one.
    """
    end = curate_each(
        open_context(), workload, dry_run=dry_run, engine=engine, steps_for=PrefectSteps
    )
    return completed(end)
