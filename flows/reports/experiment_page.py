"""The page of one experiment: what was decided, in words anyone understands, and its course."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from flows.context import Context
from flows.reports.experiment_plots import evidence_plot, interval_plot, samples_plot
from flows.reports.plots import data_uri
from flows.reports.tables import cell, table
from registry import experiments, holdback
from registry.models import Experiment, ExperimentDecision

MAX_ROWS = 40
"""Looks in the table: those that changed something, and the last."""
BASE = "the base model"
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
    said = sentence(experiment, looks[-1] if looks else None)
    plots = _plots(looks)
    html = _environment.get_template("experiment.html").render(
        title=title(experiment),
        id=experiment.id,
        since=experiment.started_at,
        until=experiment.ended_at or (looks[-1].decided_at if looks else experiment.started_at),
        status=status_text(experiment),
        frozen=experiment.frozen and experiment.status == "running",
        sentence=said,
        plots=plots,
        arms=_arms(looks[-1].facts) if looks else [],
        looks=telling(looks),
    )
    path = context.folder("experiments") / f"{experiment.id}.html"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(html, "utf-8")
    temporary.replace(path)
    return Page(path, said, _markdown(experiment, said, looks), plots[0][1] if plots else None)


def title(experiment: Experiment) -> str:
    """What is compared with what."""
    champion, challenger = experiment.champion or BASE, experiment.challenger or BASE
    if experiment.kind == holdback.KIND:
        return f"{champion}, promoted, on watch against {challenger}"
    return f"{challenger} on trial against {champion}"


def status_text(experiment: Experiment) -> str:
    """Where it stands, in words."""
    if experiment.status == "promoted" and experiment.kind == holdback.KIND:
        return "promotion confirmed"
    return experiment.status.replace("_", " ")


def sentence(experiment: Experiment, last: ExperimentDecision | None) -> str:
    """The state of the experiment in one sentence."""
    if last is None:
        return "The trial has begun; nobody has looked at it yet."
    if experiment.kind == holdback.KIND:
        return _after(last)
    facts = last.facts
    action = "by hand" if _was_ended_by_hand(experiment, last) else last.action
    reason = last.reasons["reasons"][0]
    better = facts.get("improvement")
    gain = "" if better is None else f" It scores {abs(better):.1%} {_word(better)} overall."
    return {
        "by hand": f"A person ended this trial: {experiment.reason}.",
        "promote": f"The new version is better beyond chance and now serves everyone.{gain}",
        "roll_back": f"The new version was taken off at once, because it did harm ({reason}).",
        "retire": f"The new version was not kept ({reason}); what served before goes on.",
        "ramp": f"The new version is not behind, so more people get it.{gain}",
        "wait": f"It is too early to tell: {reason}.{gain}",
    }.get(action, f"{action}: {reason}")


def telling(looks: Sequence[ExperimentDecision]) -> list[tuple[datetime, str, str]]:
    """Looks that changed something or were the first with new reasons, and the last; in order."""
    chosen = [
        after
        for before, after in pairwise([None, *looks])
        if after is not None and (after.action != "wait" or before is None)
    ]
    if looks and looks[-1] not in chosen:
        chosen.append(looks[-1])
    return [
        (look.decided_at, look.action.replace("_", " "), "; ".join(look.reasons["reasons"]))
        for look in chosen[-MAX_ROWS:]
    ]


def _after(last: ExperimentDecision) -> str:
    reason = last.reasons["reasons"][0]
    return {
        "confirm": "The promotion has stood its time: everyone has the new version now.",
        "roll_back": f"The promotion was taken back ({reason}).",
    }.get(last.action, f"The new version serves; a few people keep the old one: {reason}.")


def _was_ended_by_hand(experiment: Experiment, last: ExperimentDecision) -> bool:
    return experiment.status != "running" and last.action in ("wait", "ramp")


def _word(better: float) -> str:
    return "better" if better >= 0 else "worse"


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


def _markdown(experiment: Experiment, said: str, looks: Sequence[ExperimentDecision]) -> str:
    arms = table(["", "champion", "challenger"], _arms(looks[-1].facts)) if looks else ""
    decided = table(
        ["when (UTC)", "action", "reasons"],
        [(f"{at:%Y-%m-%d %H:%M}", action, reasons) for at, action, reasons in telling(looks)],
    )
    return f"# {cell(title(experiment))}\n\n**{cell(said)}**\n\n{arms}\n\n{decided}\n"
