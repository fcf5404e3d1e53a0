"""The daily look at what people say: whom to believe, how to score, what to have judged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flows.context import Context
from flows.curation import active
from flows.curation.watch import WatchReport, watch
from flows.reports.signal_tables import drift_table, scorer_table, watch_table
from flows.scoring import ScoringReport, fit_scorer, input_drift, load_active
from flows.steps import Steps
from registry import review
from registry.features import extract
from registry.ratings import unrated


@dataclass(frozen=True)
class SignalsReport:
    """What came of one look."""

    watched: WatchReport
    scoring: ScoringReport
    num_picked: int
    """Unrated answers that reviewers are asked to judge."""


def run_watch(context: Context, *, workload: str, steps: Steps) -> WatchReport:
    """Hold back suspicious feedback, before it is learned from."""
    found = steps.run(
        "watch-feedback",
        lambda: watch(
            context.database,
            workload=workload,
            settings=context.settings.signals,
            keyring=context.keyring,
            clock=context.clock,
            new_id=context.new_id,
        ),
        retries=2,
    )
    steps.table("feedback-trust", watch_table(found))
    return found


def run_scoring(context: Context, *, workload: str, steps: Steps) -> tuple[ScoringReport, int]:
    """Fit the scorer, report its drift, and pick what reviewers should judge; how many."""
    drifted = input_drift(context, workload=workload)
    if drifted is not None:
        alert = context.settings.signals.scorer.drift_alert
        steps.table("scorer-drift", drift_table(drifted, alert=alert))
    scoring = steps.run("fit-scorer", lambda: fit_scorer(context, workload=workload))
    steps.table("scorer", scorer_table(scoring))
    picked = steps.run("pick-for-review", lambda: pick_for_review(context, workload=workload))
    return scoring, picked


def run_signals(context: Context, *, workload: str, steps: Steps) -> SignalsReport:
    """All of it."""
    watched = run_watch(context, workload=workload, steps=steps)
    scoring, picked = run_scoring(context, workload=workload, steps=steps)
    return SignalsReport(watched, scoring, picked)


def pick_for_review(context: Context, *, workload: str) -> int:
    """Put the unrated answers that would teach the scorer most into the reviewers' queue.

    Those of the day before that nobody has judged make room. Without a fitted scorer nobody
    knows what would teach it, and nothing is picked.
    """
    settings = context.settings.signals.review
    found = load_active(context, workload=workload)
    if found is None:
        return 0
    scorer = found[0].scorer
    with context.database.read() as session:
        pool = unrated(session, context.keyring, workload=workload, limit=settings.pool)
    answers = [answer for answer in pool if scorer.may_score(answer.sample)]
    features = [extract(answer.sample) for answer in answers]
    chances = np.array([scorer.score_features(each) for each in features])
    reasons = {
        answers[row].id: f"the chance that people like it is {chances[row]:.0%}"
        for row in active.pick(chances, features, num=settings.batch)
    }
    with context.database.write() as session:
        return review.replace_informative(
            session,
            workload=workload,
            reasons=reasons,
            now=context.clock(),
            new_id=context.new_id,
        )
