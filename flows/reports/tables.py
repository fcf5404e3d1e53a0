"""Markdown tables of what the flows did."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

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
    """One row per version; one column per metric, then per target tool."""
    metrics = sorted({name for result in results.values() for name in result.metrics})
    metrics = [name for name in metrics if name != "accuracy"]
    tools = sorted({tool for result in results.values() for tool in result.scores.by_tool})
    rows = [
        [
            version,
            result.scores.num_samples,
            result.scores.accuracy,
            *(result.metrics.get(name) for name in metrics),
            *(_accuracy(result, tool) for tool in tools),
        ]
        for version, result in results.items()
    ]
    return table(["version", "samples", "accuracy", *metrics, *tools], rows)


def _accuracy(result: Evaluated, tool: str) -> float | None:
    score = result.scores.by_tool.get(tool)
    return None if score is None else score.accuracy
