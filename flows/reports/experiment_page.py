"""The page of one experiment: what was decided, in words anyone understands, and its course."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from flows.context import Context
from flows.reports.experiment_plots import evidence_plot, interval_plot, samples_plot
from flows.reports.experiment_words import by_version, sentence, status_text, telling, title
from flows.reports.plots import data_uri
from flows.reports.tables import cell, table
from registry import arms, experiments
from registry.models import ExperimentDecision

ARM_ROWS = (
    ("answers", "answers", "d"),
    ("failed", "failed", "d"),
    ("rated answers that count", "rated", "d"),
    ("worth so many equally active people", "users", ".0f"),
    ("mean quality", "quality", ".3f"),
    ("rated positive", "positive_rate", ".1%"),
    ("p95 latency in ms", "p95_ms", ".0f"),
)

_environment = Environment(
    loader=PackageLoader("flows.reports", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Page:
    """A page as it was written, and its parts for Prefect."""

    path: Path
    sentence: str
    markdown: str
    plot: str | None
    """The comparison over time, as a data: URI; None before there is one."""


def write_page(context: Context, experiment_id: str) -> Page:
    """Write `experiments/<id>.html` in the installation's home. Raises `NotFoundError`."""
    with context.database.read() as session:
        experiment = experiments.get(session, experiment_id)
        looks = experiments.decisions(session, experiment_id=experiment_id)
        tried = [row.version for row in arms.of(session, experiment_id)]
    said = sentence(experiment, looks)
    parts = _parts(looks)
    html = _environment.get_template("experiment.html").render(
        title=title(experiment, tried),
        id=experiment.id,
        since=experiment.started_at,
        until=experiment.ended_at or (looks[-1].decided_at if looks else experiment.started_at),
        status=status_text(experiment),
        frozen=experiment.frozen and experiment.status == "running",
        sentence=said,
        parts=parts,
        looks=telling(looks),
    )
    path = context.folder("experiments") / f"{experiment.id}.html"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(html, "utf-8")
    temporary.replace(path)
    shown = [image for part in parts for _, image in part.plots]
    markdown = _markdown(title(experiment, tried), said, parts, looks)
    return Page(path, said, markdown, shown[0] if shown else None)


@dataclass(frozen=True)
class Part:
    """One challenger's part of the page; `name` is None where it is the only one."""

    name: str | None
    plots: list[tuple[str, str]]
    """Heading and image, as a data: URI."""
    arms: list[tuple[str, str, str]]
    """What is counted, of champion and challenger."""


def _parts(looks: Sequence[ExperimentDecision]) -> list[Part]:
    return [
        Part(name, _plots(own), _arms(own[-1].facts)) for name, own in by_version(looks).items()
    ]


def _plots(looks: Sequence[ExperimentDecision]) -> list[tuple[str, str]]:
    compared = [look for look in looks if look.facts.get("difference") is not None]
    found = []
    if len(compared) > 1:
        found.append(("How much better, and how sure", data_uri(interval_plot(compared))))
    if len(looks) > 1:
        found.append(("Guardrails: evidence of harm", data_uri(evidence_plot(looks))))
        found.append(("Share of traffic, and ratings", data_uri(samples_plot(looks))))
    return found


def _arms(facts: dict[str, Any]) -> list[tuple[str, str, str]]:
    def shown(value: float | None, form: str) -> str:
        return "–" if value is None else format(value, form)

    return [
        (
            name,
            shown(facts.get(f"champion_{key}"), form),
            shown(facts.get(f"challenger_{key}"), form),
        )
        for name, key, form in ARM_ROWS
    ]


def _markdown(
    heading: str, said: str, parts: list[Part], looks: Sequence[ExperimentDecision]
) -> str:
    compared = "\n\n".join(
        table(["", "champion", part.name or "challenger"], part.arms) for part in parts
    )
    decided = table(
        ["when (UTC)", "action", "reasons"],
        [(f"{at:%Y-%m-%d %H:%M}", action, reasons) for at, action, reasons in telling(looks)],
    )
    return f"# {cell(heading)}\n\n**{cell(said)}**\n\n{compared}\n\n{decided}\n"
