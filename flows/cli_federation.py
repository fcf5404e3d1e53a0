"""`kalimtak federate`: several installations learn one adapter, and keep their data."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows import environment
from flows.errors import RefusedError
from registry.models import DEFAULT_WORKLOAD
from registry.settings import load_settings

if TYPE_CHECKING:
    from training.federated.rounds import RoundReport


def federate(
    sites: Annotated[list[Path], typer.Argument(help="Homes of the installations, two or more.")],
    out: Annotated[Path, typer.Option(help="Folder for the adapter and the report.")],
    rounds: Annotated[int, typer.Option(min=1, help="How often adapters are averaged.")] = 3,
    workload: Annotated[str, typer.Option(help="The task that this is about.")] = DEFAULT_WORKLOAD,
    max_rank: Annotated[
        int | None,
        typer.Option(min=1, help="Rank of the average. Unset: the recipe's times the sites."),
    ] = None,
    clip: Annotated[
        float | None, typer.Option(help="Longest step of a site in a round (Frobenius norm).")
    ] = None,
    noise: Annotated[
        float, typer.Option(help="Noise on the sum of steps, as a multiple of --clip.")
    ] = 0.0,
    delta: Annotated[float, typer.Option(help="The δ at which ε is told.")] = 1e-5,
) -> None:
    """Train one adapter at several sites; only adapters and counts leave them."""
    settings = load_settings()
    environment.apply(settings)
    from flows.federation import run_federation
    from training.config import load_recipe
    from training.federated.averaging import Averaging

    rank = max_rank or load_recipe(settings.training.recipe).lora.rank * len(sites)
    try:
        averaging = Averaging(max_rank=rank, clip_norm=clip, noise_multiplier=noise, delta=delta)
    except ValueError as error:
        raise RefusedError(str(error)) from error
    run_federation(
        settings,
        sites,
        num_rounds=rounds,
        averaging=averaging,
        out=out,
        workload=workload,
        on_round=lambda report: _tell(report, delta),
    )
    typer.echo(f"adapter: {out / 'adapter'}")


def _tell(report: RoundReport, delta: float) -> None:
    budget = f", ε = {report.epsilon:.2f} at δ = {delta:g}" if math.isfinite(report.epsilon) else ""
    typer.echo(
        f"{sum(report.num_samples)} samples at {len(report.num_samples)} sites: validation loss "
        f"{report.validation_loss:.3f}, rank {report.rank} ({report.lost:.1%} lost){budget}"
    )
