"""Curation as its schedule runs it: every workload, each for itself."""

from __future__ import annotations

from sqlmodel import select

from flows.context import Context
from flows.curate import curate_each
from flows.steps import PlainSteps
from registry import deployment
from registry.models import TrainingData
from tests.support.usage import log_liked


def test_each_workload_is_curated_and_has_its_page(context: Context) -> None:
    with context.database.write() as session:
        deployment.add_workload(session, "support", now=context.clock())
    log_liked(context, 3, at=context.clock())
    log_liked(context, 2, at=context.clock(), start=3, workload="support")
    end = curate_each(context, None, steps_for=lambda _: PlainSteps())
    assert end.message == (
        "default: 3 samples added, 0 withdrawn\nsupport: 2 samples added, 0 withdrawn"
    )
    with context.database.read() as session:
        found = session.exec(select(TrainingData.workload)).all()
    assert sorted(found) == [*["default"] * 3, *["support"] * 2]
    pages = sorted(path.name.split("-")[1] for path in context.folder("reports").iterdir())
    assert pages == ["default", "support"]
