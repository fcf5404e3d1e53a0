"""Markdown tables of what the flows did."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what writes a table of its own need not load all that others tell of
    from flows.curation.dataset import BuiltDataset
    from flows.curation.pipeline import CurationReport
    from flows.decisions.experiment import ExperimentDecision
    from flows.decisions.triggers import TriggerDecision
    from flows.learner import Evaluated
    from flows.registration import RetrainResult

NONE = "–"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A markdown table; cells are escaped, None is a dash, floats have three decimals."""
    lines = [header, ["---"] * len(header), *([cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(value: object) -> str:
    """One value as text that cannot break a table."""
    if value is None:
        return NONE
    if isinstance(value, float):
        return f"{value:.3f}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def curation_table(report: CurationReport) -> str:
    """What became of every row, step by step, and what was added by target tool."""
    steps = table(["step", "left"], report.counts.items())
    tools = table(["domain", "new samples"], report.by_tool.items())
    notes = table(["found in the rows", "rows"], report.notes.items())
    summary = (
        f"**{report.num_added} samples added**, {report.num_withdrawn} withdrawn, "
        f"{report.num_held} held for reviewers, "
        f"feedback read up to {report.watermark:%Y-%m-%d %H:%M:%S} UTC"
    )
    note = "\n\nDry run: nothing was stored." if report.dry_run else ""
    return f"# Curation of {report.workload}\n\n{summary}{note}\n\n{steps}\n\n{tools}\n\n{notes}\n"


def dataset_table(dataset: BuiltDataset) -> str:
    """The size of a dataset and its name."""
    rows = [
        ("training", dataset.num_train),
        ("validation", dataset.num_validation),
        ("test", dataset.num_test),
        ("rehearsal", dataset.num_rehearsal),
    ]
    return (
        f"# Dataset {dataset.dataset_id}\n\nDigest `{dataset.digest}`\n\n"
        f"{table(['part', 'samples'], rows)}\n"
    )


def trigger_table(decision: TriggerDecision) -> str:
    """Every number that was looked at, and what came of it."""
    fired = "none fired" if decision.trigger is None else f"`{decision.trigger}` fired"
    checks = table(["looked at"], ([check] for check in decision.checks))
    return f"# Retraining triggers: {fired}\n\n{cell(decision.reason)}\n\n{checks}\n"


def retrain_table(result: RetrainResult) -> str:
    """How a run ended."""
    rows = [
        ("status", result.status),
        ("reason", result.reason),
        ("run", result.run_id),
        ("dataset", result.dataset_id),
        ("version", result.version),
        ("now", result.standing),
    ]
    return f"# Retraining: {result.status}\n\n{table(['what', 'value'], rows)}\n"


def experiment_table(decision: ExperimentDecision) -> str:
    """What a look at an experiment decided, why, and on which numbers."""
    reasons = "\n".join(f"- {reason}" for reason in decision.reasons)
    numbers = table(["number", "value"], decision.numbers.items()) if decision.numbers else ""
    return f"# Experiment: {decision.action}\n\n{reasons}\n\n{numbers}\n"


def evaluation_table(results: Mapping[str, Evaluated]) -> str:
    """Three tables: versions by metric, and their accuracy by target tool and by language."""
    metrics = measured(result.metrics for result in results.values())
    overall = table(
        ["version", "samples", *metrics],
        (
            [
                version,
                result.scores.num_samples,
                *(with_interval(result.metrics, name) for name in metrics),
            ]
            for version, result in results.items()
        ),
    )
    tools = {version: result.by_tool for version, result in results.items()}
    languages = {version: result.by_language for version, result in results.items()}
    parts = [overall, _group_table("target tool", tools), _group_table("language", languages)]
    return "\n\n".join(part for part in parts if part)


def measured(found: Iterable[Mapping[str, float]]) -> list[str]:
    """The metrics that occur, accuracy first; the ends of intervals belong to their metrics."""
    names = {name for metrics in found for name in metrics}
    ends = {f"{name} {end}" for name in names for end in ("from", "to")}
    return sorted(names - ends - {"samples"}, key=lambda name: (name != "accuracy", name))


def with_interval(metrics: Mapping[str, float], name: str) -> str:
    """A metric as text, with its interval where it has one."""
    if name not in metrics:
        return NONE
    text = f"{metrics[name]:.3f}"
    if f"{name} from" not in metrics:
        return text
    return f"{text} ({metrics[f'{name} from']:.2f} to {metrics[f'{name} to']:.2f})"


def _group_table(what: str, groups: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Accuracy of every version in every group; empty where there is none."""
    names = sorted({name for found in groups.values() for name in found})
    if not names:
        return ""
    rows = (
        [version, *(with_interval(found.get(name, {}), "accuracy") for name in names)]
        for version, found in groups.items()
    )
    return f"Accuracy by {what}\n\n{table(['version', *names], rows)}"
