"""The page of one experiment: what was decided, in words anyone understands, and its course."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from flows.context import Context
from flows.reports.experiment_plots import evidence_plot, interval_plot, samples_plot
from flows.reports.plots import data_uri
from flows.reports.tables import cell, table
from registry import arms, experiments, holdback
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


def title(experiment: Experiment, tried: Sequence[str] = ()) -> str:
    """What is compared with what. `tried`: all challengers, where they are several."""
    champion = experiment.champion or BASE
    challenger = ", ".join(tried) or experiment.challenger or BASE
    if experiment.kind == experiments.ITSELF:
        return f"{champion} on trial against itself"
    if experiment.kind == holdback.KIND:
        return f"{champion}, promoted, on watch against {challenger}"
    return f"{challenger} on trial against {champion}"


def status_text(experiment: Experiment) -> str:
    """Where it stands, in words."""
    if experiment.status == "promoted" and experiment.kind == holdback.KIND:
        return "promotion confirmed"
    return experiment.status.replace("_", " ")


def sentence(experiment: Experiment, looks: Sequence[ExperimentDecision]) -> str:
    """The state of the experiment in one sentence; of several challengers, one for each."""
    latest = {look.version: look for look in looks}
    if not latest:
        return "The trial has begun; nobody has looked at it yet."
    if experiment.kind == experiments.ITSELF:
        return _of_itself(experiment, looks[-1])
    if len(latest) == 1:
        return _of_one(experiment, looks[-1])
    return " ".join(f"{version}: {_of_one(experiment, last)}" for version, last in latest.items())


def _of_itself(experiment: Experiment, last: ExperimentDecision) -> str:
    reason = last.reasons["reasons"][0]
    if experiment.status == "running":
        return f"The champion is on trial against itself: nothing should be found ({reason})."
    if last.action in ("wait", "ramp") or reason.startswith("no decision within"):
        return f"No difference was found, as there is none ({experiment.reason})."
    return (
        f"A difference was found where there is none ({reason}): by chance, or something treats "
        "the two groups of people differently."
    )


def _of_one(experiment: Experiment, last: ExperimentDecision) -> str:
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
    ends = {id(own[place]) for own in _by_version(looks).values() for place in (0, -1)}
    chosen = [look for look in looks if look.action != "wait" or id(look) in ends]
    return [
        (look.decided_at, look.action.replace("_", " "), _reasons(look))
        for look in chosen[-MAX_ROWS:]
    ]


def _reasons(look: ExperimentDecision) -> str:
    about = "" if look.version is None else f"{look.version}: "
    return about + "; ".join(look.reasons["reasons"])


def _by_version(
    looks: Sequence[ExperimentDecision],
) -> dict[str | None, list[ExperimentDecision]]:
    found: dict[str | None, list[ExperimentDecision]] = {}
    for look in looks:
        found.setdefault(look.version, []).append(look)
    return found


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
        Part(name, _plots(own), _arms(own[-1].facts)) for name, own in _by_version(looks).items()
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
