"""One self-contained page per report: no file beside it, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from jinja2 import Environment, PackageLoader, StrictUndefined

from flows.learner import Evaluated
from flows.reports.forgetting import forgetting_plot
from flows.reports.plots import data_uri, tools_plot, versions_plot

environment = Environment(
    loader=PackageLoader("flows.reports", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One version in a report; `standing` is its place in production, `parent` its lineage."""

    version: str
    standing: str
    parent: str | None
    evaluated: Evaluated


def evaluation_page(rows: Sequence[Row], *, workload: str, dataset_id: str, now: datetime) -> str:
    """The evaluation of several versions, oldest first, on one dataset's held-out samples."""
    results: Mapping[str, Evaluated] = {row.version: row.evaluated for row in rows}
    return environment.get_template("evaluation.html").render(
        workload=workload,
        dataset_id=dataset_id,
        now=now,
        rows=rows,
        metrics=sorted({name for row in rows for name in row.evaluated.metrics} - {"accuracy"}),
        tools=sorted({tool for row in rows for tool in row.evaluated.scores.by_tool}),
        plots=[
            ("Accuracy of each version", data_uri(versions_plot(results))),
            ("Accuracy by target tool", data_uri(tools_plot(results))),
            ("Accuracy against the best version before", data_uri(forgetting_plot(results))),
        ],
    )
