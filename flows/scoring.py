"""The quality scorer of a workload: fitted on feedback, tried, published, activated, watched."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np

from flows.context import Context
from flows.curation import trust
from flows.curation.watch import events_frame
from registry import deployment, drift, quality, review, scorer, scorers
from registry.quality import ActiveScorer
from registry.ratings import Answered, Event, answered_since, rated
from registry.settings_signals import ScorerSettings
from training.discriminator import Fitted, Rating, fit
from training.errors import DataError

DRIFT_WINDOW = timedelta(hours=24)
DRIFT_ROWS = 2_000
ACTOR = "flow:curate"


@dataclass(frozen=True, kw_only=True)
class ScoringReport:
    """What came of one attempt to fit a scorer."""

    num_ratings: int
    version: str | None = None
    """The scorer that was kept; None where none could be fitted."""
    is_active: bool = False
    reason: str
    auc: float | None = None
    rule_auc: float | None = None


def fit_scorer(context: Context, *, workload: str) -> ScoringReport:
    """Fit a scorer on the workload's feedback; it scores from now on if it passes the gate.

    While a trial runs, the scorer stays as it is: both arms are to be measured alike.
    """
    settings = context.settings.signals.scorer
    if not settings.enabled:
        return ScoringReport(num_ratings=0, reason="off (setting signals.scorer.enabled)")
    ratings = read_ratings(context, workload=workload)
    if len(ratings) < settings.min_ratings:
        return ScoringReport(
            num_ratings=len(ratings),
            reason=f"{len(ratings)} ratings, {settings.min_ratings} are needed "
            "(setting signals.scorer.min_ratings)",
        )
    try:
        fitted = fit(ratings, rule=[_rule(rating) for rating in ratings])
    except DataError as error:
        return ScoringReport(num_ratings=len(ratings), reason=str(error))
    passes, reason = may_serve(fitted, settings)
    chats = may_score_conversations(fitted, settings)
    if chats:
        reason = f"{reason}; conversations too" if passes else f"conversations alone: {reason}"
    # One that passes nothing may still be activated by hand, for prompts.
    kinds = np.array([float(passes or not chats), float(chats)])
    fitted = replace(fitted, scorer=replace(fitted.scorer, kinds=kinds))
    passes = passes or chats
    digest = _publish(context, fitted, workload=workload)
    return _keep(context, fitted, digest, workload=workload, passes=passes, reason=reason)


def may_serve(fitted: Fitted, settings: ScorerSettings) -> tuple[bool, str]:
    """Whether a scorer may score answers, and why."""
    found, rule = fitted.held_out, fitted.rule_held_out
    if (
        found is None
        or rule is None
        or min(found.num_liked, found.num_other) < (settings.min_held_out)
    ):
        return False, (
            f"fewer than {settings.min_held_out} held-out ratings of one opinion "
            "(setting signals.scorer.min_held_out)"
        )
    shown = f"held-out AUC {found.auc:.3f} ± {found.auc_error:.3f}"
    if found.auc - found.auc_error < settings.min_auc:
        return False, f"{shown}, at least {settings.min_auc:g} above its error is needed"
    if found.auc <= rule.auc:
        return False, f"{shown}, no better than the rule's {rule.auc:.3f}"
    return True, f"{shown}, the rule's {rule.auc:.3f}"


def may_score_conversations(fitted: Fitted, settings: ScorerSettings) -> bool:
    """Whether a scorer may score turns of conversations, for which there is no rule."""
    found = fitted.conversations_held_out
    return (
        found is not None
        and min(found.num_liked, found.num_other) >= settings.min_held_out
        and found.auc - found.auc_error >= settings.min_auc
    )


def read_ratings(context: Context, *, workload: str) -> list[Rating]:
    """What people think of answers, each with the weight of whoever says it.

    A correction without a rating is a dislike. What is held back counts for nothing, unless
    a reviewer has spoken.
    """
    settings = context.settings.signals
    with context.database.read() as session:
        answers, said = rated(
            session, context.keyring, workload=workload, limit=settings.scorer.max_ratings
        )
        held = review.held_back(session, workload=workload)
    weights: dict[str, float] = dict(
        trust.rater_weights(events_frame(answers, said), settings.trust)
        .select("rater", "rater_weight")
        .iter_rows()
    )
    latest = {(event.interaction_id, event.rater, event.is_review): event for event in said}
    return [
        _rating(
            answers[event.interaction_id],
            event,
            weight=settings.scorer.review_weight
            if event.is_review
            else weights.get(event.rater or "", 1.0),
        )
        for event in latest.values()
        if _opinion(event) is not None and (event.is_review or event.interaction_id not in held)
    ]


def activate(context: Context, version: str, *, actor: str, reason: str) -> None:
    """Have a workload's answers scored by `version`. Raises `NotFoundError` or `ArtifactError`."""
    with context.database.read() as session:
        digest = scorers.get(session, version).digest
    scorer.load(context.store.fetch(digest))
    with context.database.write() as session:
        scorers.activate(session, context.act(actor, reason), version)


def load_active(context: Context, *, workload: str) -> tuple[ActiveScorer, dict[str, Any]] | None:
    """The active scorer and its manifest; None where the rule scores. Raises `ArtifactError`."""
    with context.database.read() as session:
        row = scorers.active(session).get(workload)
    if row is None:
        return None
    folder = context.store.fetch(row.digest)
    return ActiveScorer(row.version, scorer.load(folder)), scorer.read_manifest(folder)


def input_drift(context: Context, *, workload: str) -> Mapping[str, float] | None:
    """How far the answers of the last day have left what the active scorer was fitted on.

    Only answers since it was fitted count, as it knows those before. The population stability
    index of each input, worst first; None where the rule scores.
    """
    found = load_active(context, workload=workload)
    if found is None:
        return None
    active, manifest = found
    with context.database.read() as session:
        fitted_at = scorers.get(session, active.version).created_at
        since = max(fitted_at, context.clock() - DRIFT_WINDOW)
        answers = answered_since(
            session, context.keyring, workload=workload, since=since, limit=DRIFT_ROWS
        )
    samples = [answer.sample for answer in answers if active.scorer.may_score(answer.sample)]
    return drift.stability(active.scorer, manifest.get("reference", {}), samples)


def _rating(answer: Answered, event: Event, *, weight: float) -> Rating:
    return Rating(
        sample=answer.sample,
        liked=_opinion(event) == 1,
        user=event.rater or answer.id,
        at=event.at,
        weight=weight,
    )


def _opinion(event: Event) -> int | None:
    """1 or -1; None where the feedback takes no side."""
    if event.thumb is None:
        return None if event.corrected_output is None else -1
    return event.thumb or None


def _rule(rating: Rating) -> float:
    if rating.sample.is_conversation:
        return 0.5
    return quality.score(rating.sample.output, target_tool=rating.sample.target_tool)


def _publish(context: Context, fitted: Fitted, *, workload: str) -> str:
    folder = context.folder("runs") / f"scorer-{context.new_id()}"
    try:
        scorer.save(
            fitted.scorer,
            folder,
            manifest={
                "workload": workload,
                "metrics": _metrics(fitted),
                "reference": drift.reference(fitted.scorer, fitted.features),
                "created_at": context.clock().isoformat(),
            },
        )
        return context.store.publish(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _metrics(fitted: Fitted) -> dict[str, Any]:
    return {
        "num_ratings": fitted.num_ratings,
        "held_out": None if fitted.held_out is None else asdict(fitted.held_out),
        "rule_held_out": None if fitted.rule_held_out is None else asdict(fitted.rule_held_out),
        "conversations_held_out": None
        if fitted.conversations_held_out is None
        else asdict(fitted.conversations_held_out),
        "cross_fitted": asdict(fitted.cross_fitted),
    }


def _keep(
    context: Context, fitted: Fitted, digest: str, *, workload: str, passes: bool, reason: str
) -> ScoringReport:
    now = context.clock()
    version = scorers.version_name(now, digest)
    with context.database.write() as session:
        trial = deployment.desired(session, workload).experiment_id
        if passes and trial is not None:
            passes, reason = False, f"{reason}; not used while trial {trial} runs"
        act = context.act(ACTOR, reason)
        scorers.add(
            session,
            act,
            version=version,
            workload=workload,
            digest=digest,
            metrics=_metrics(fitted),
        )
        if passes:
            scorers.activate(session, act, version)
    return ScoringReport(
        num_ratings=fitted.num_ratings,
        version=version,
        is_active=passes,
        reason=reason,
        auc=None if fitted.held_out is None else fitted.held_out.auc,
        rule_auc=None if fitted.rule_held_out is None else fitted.rule_held_out.auc,
    )
