"""Markdown tables of what people say: trust, the scorer, its drift."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from flows.reports.tables import table

if TYPE_CHECKING:
    from flows.curation.watch import WatchReport
    from flows.scoring import ScoringReport


def watch_table(report: WatchReport) -> str:
    """Whom to believe, and what was held back."""
    rows = [
        ("pieces of feedback looked at", report.num_events),
        ("raters", report.num_raters),
        ("raters that are not believed", report.num_distrusted),
        *((f"newly held back: {kind}", number) for kind, number in report.held.items()),
    ]
    return table(("what", "number"), rows)


def scorer_table(report: ScoringReport) -> str:
    """What came of fitting a scorer."""
    return table(
        ("what", "value"),
        [
            ("ratings", report.num_ratings),
            ("scorer", report.version or "–"),
            ("scores from now on", "yes" if report.is_active else "no"),
            ("why", report.reason),
        ],
    )


def drift_table(drifted: Mapping[str, float], *, alert: float) -> str:
    """How far the scored answers have left those that the scorer was fitted on."""
    rows = [(name, value, "drifted" if value > alert else "") for name, value in drifted.items()]
    return table(("input of the scorer", "PSI", ""), rows)
