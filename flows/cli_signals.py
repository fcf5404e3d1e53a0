"""`kalimtak scorer`: the quality scorer that is fitted on feedback."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from flows.context import Context, open_context
from registry import quality, scorers, texts
from registry.errors import NotFoundError
from registry.features import Sample
from registry.models import UserInteraction

scorer = typer.Typer(help="The quality scorer that feedback fits.", no_args_is_help=True)
console = Console()
ACTOR = "cli"

Workload = Annotated[str, typer.Option(help="The task that this is about.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the audit log.")]


@scorer.command()
def fit(workload: Workload = "default") -> None:
    """Fit a scorer on the feedback; it scores from now on if it passes the gate."""
    from flows.scoring import fit_scorer

    report = fit_scorer(open_context(workload=workload), workload=workload)
    _tell(f"{report.num_ratings} ratings: {report.reason}")
    if report.version is not None:
        _tell(f"{report.version} {'scores from now on' if report.is_active else 'is kept'}")


@scorer.command("list")
def show(workload: Workload = "default") -> None:
    """List the scorers, newest first."""
    with open_context(workload=workload).database.read() as session:
        found = scorers.list_scorers(session, workload=workload)
    name = Column("scorer", no_wrap=True)  # to be typed again
    table = Table(name, "scores", "ratings", "held-out AUC", "created (UTC)", "why", box=None)
    for row in found:
        held_out = row.metrics.get("held_out")
        table.add_row(
            escape(row.version),
            "yes" if row.is_active else "no",
            str(row.metrics.get("num_ratings", "–")),
            "–" if held_out is None else f"{held_out['auc']:.3f} ± {held_out['auc_error']:.3f}",
            f"{row.created_at:%Y-%m-%d %H:%M}",
            escape(row.status_reason),
        )
    console.print(table)


@scorer.command()
def explain(
    interaction: Annotated[str, typer.Argument(help="Id of the answer's interaction.")],
    top: Annotated[int, typer.Option(min=1, help="How many features.")] = 10,
) -> None:
    """Show what moved the score of one answer most."""
    from flows.scoring import load_active

    context = open_context()
    row = _interaction(context, interaction)
    found = load_active(context, workload=row.workload)
    active = None if found is None else found[0]
    is_chat = row.messages is not None
    sample = Sample(row.input_text, row.model_output, row.target_tool, row.language, is_chat)
    score = quality.judge(sample, active)
    stored = "none" if row.quality_score is None else f"{row.quality_score:.3f}"
    if score is None:
        _tell(f"no score: no active scorer was tried on conversations (stored: {stored})")
        return
    _tell(f"score {score.value:.3f} by {score.scorer_version} (stored: {stored})")
    table = Table("effect", "feature", "value", box=None)
    for reason in quality.explain(sample, active, top=top):
        table.add_row(f"{reason.effect:+.3f}", escape(reason.feature), f"{reason.value:g}")
    console.print(table)


@scorer.command()
def activate(
    version: Annotated[str, typer.Argument(help="See kalimtak scorer list.")],
    reason: Reason = "activated by hand",
) -> None:
    """Have answers scored by a fitted scorer, whatever its gate said."""
    from flows.scoring import activate as activate_scorer

    activate_scorer(open_context(), version, actor=ACTOR, reason=reason)
    _tell(f"{version} scores from now on")


@scorer.command()
def off(workload: Workload = "default", reason: Reason = "turned off by hand") -> None:
    """Have the rule score again."""
    context = open_context(workload=workload)
    with context.database.write() as session:
        scorers.deactivate(session, context.act(ACTOR, reason), workload=workload)
    _tell("the rule scores from now on")


@scorer.command("drift")
def show_drift(workload: Workload = "default") -> None:
    """Show how far the last day's answers have left what the scorer was fitted on."""
    from flows.scoring import input_drift

    context = open_context(workload=workload)
    drifted = input_drift(context, workload=workload)
    if not drifted:
        _tell("the rule scores" if drifted is None else "nothing was answered in the last day")
        return
    alert = context.settings.signals.scorer.drift_alert
    table = Table("input", "PSI", "", box=None)
    for name, value in drifted.items():
        table.add_row(escape(name), f"{value:.3f}", "drifted" if value > alert else "")
    console.print(table)


def _interaction(context: Context, interaction_id: str) -> UserInteraction:
    with context.database.read() as session:
        row = session.get(UserInteraction, interaction_id)
    if row is None:
        raise NotFoundError(f"no interaction '{interaction_id}'")
    texts.reveal(row, context.keyring)
    return row


def _tell(line: str) -> None:
    console.print(escape(line), highlight=False)
