"""One self-contained page per report: no file beside it, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from jinja2 import Environment, PackageLoader, StrictUndefined

from flows.learner import FEW_SHOT, Evaluated
from flows.reports.forgetting import forgetting_plot
from flows.reports.over_time import over_time_plot
from flows.reports.plots import data_uri, tools_plot, versions_plot
from flows.reports.tables import measured, with_interval

environment = Environment(
    loader=PackageLoader("flows.reports", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
environment.filters["interval"] = with_interval


@dataclass(frozen=True, kw_only=True)
class Row:
    """One version in a report; `standing` is its place in production, `parent` its lineage."""

    version: str
    standing: str
    parent: str | None
    evaluated: Evaluated
    made: datetime | None = None
    """When it was trained; None for what was not."""


def notes(rows: Sequence[Row]) -> list[str]:
    """What a reader must not overlook: trained versions that prompting with examples matches."""
    by_name = {row.version: row.evaluated.scores.accuracy for row in rows}
    if FEW_SHOT not in by_name:
        return []
    shown = by_name[FEW_SHOT]
    return [
        f"{row.version} ({row.standing}) is no better than the base model with examples in its "
        f"prompt: accuracy {row.evaluated.scores.accuracy:.3f} against {shown:.3f}."
        for row in rows
        if row.made is not None and row.evaluated.scores.accuracy <= shown
    ]


def plots(rows: Sequence[Row]) -> list[tuple[str, str, bytes]]:
    """Every plot of an evaluation: its key, its title and the picture."""
    results: Mapping[str, Evaluated] = {row.version: row.evaluated for row in rows}
    made = {row.version: row.made for row in rows if row.made is not None}
    return [
        ("evaluation-over-time", "Accuracy over time", over_time_plot(results, made)),
        ("evaluation-versions", "Accuracy of each version", versions_plot(results)),
        ("evaluation-tools", "Accuracy by target tool", tools_plot(results)),
        (
            "evaluation-forgetting",
            "Accuracy against the best version before",
            forgetting_plot(results),
        ),
    ]


def evaluation_page(
    rows: Sequence[Row],
    *,
    workload: str,
    asked: str,
    now: datetime,
    pictures: Sequence[tuple[str, str, bytes]],
) -> str:
    """The evaluation of several versions, oldest first, on the questions that `asked` tells."""
    return environment.get_template("evaluation.html").render(
        workload=workload,
        asked=asked,
        now=now,
        rows=rows,
        notes=notes(rows),
        metrics=measured(row.evaluated.metrics for row in rows),
        groups=[
            ("By target tool", _names(row.evaluated.by_tool for row in rows), "by_tool"),
            ("By language", _names(row.evaluated.by_language for row in rows), "by_language"),
        ],
        plots=[(title, data_uri(png)) for _, title, png in pictures],
    )


def _names(groups: Iterable[Mapping[str, object]]) -> list[str]:
    return sorted({name for group in groups for name in group})
