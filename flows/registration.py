"""Puts a trained and judged version into the registry: all of it in one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session

from flows import rollout, trail
from flows.context import Context
from flows.curation.dataset import BuiltDataset
from flows.decisions.gate import GateDecision
from flows.learner import FEW_SHOT, Evaluated, Learner, Trained
from registry import acts, deployment, experiments, runs, versions
from registry.deployment import LiveVersion
from registry.versions import Status

ACTOR = "flow:retrain"
INCUMBENT, CANDIDATE = "incumbent", "candidate"
"""The two that are evaluated: whoever serves now, and the version just trained."""


@dataclass(frozen=True, kw_only=True)
class RetrainResult:
    """How a run ended. `status`: succeeded, rejected, refused or prepared (a dry run)."""

    status: str
    reason: str
    run_id: str | None = None
    dataset_id: str | None = None
    version: str | None = None
    standing: str | None = None
    """The version's status afterwards: challenger, champion, registered or rejected."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A trained and judged adapter, on its way into the registry."""

    champion: LiveVersion | None
    """Who served when its training began; None: the base model."""
    parent: LiveVersion | None
    """Whose adapter it goes on from, and was judged against."""
    dataset: BuiltDataset
    trained: Trained
    evaluated: dict[str, Evaluated]
    verdict: GateDecision
    digest: str


def beside_few_shot(verdict: GateDecision, evaluated: Mapping[str, Evaluated]) -> GateDecision:
    """The verdict, and where the candidate is no better than prompting with examples, that too."""
    few_shot = evaluated.get(FEW_SHOT)
    if few_shot is None:
        return verdict
    shown, trained = few_shot.scores.accuracy, evaluated[CANDIDATE].scores.accuracy
    if trained > shown:
        return verdict
    note = (
        f"no better than the base model with examples in its prompt: accuracy {shown:.3f} "
        f"against {trained:.3f}"
    )
    return GateDecision(verdict.passed, (*verdict.reasons, note))


def register(
    context: Context, learner: Learner, run_id: str, candidate: Candidate, *, workload: str
) -> RetrainResult:
    """Version, standing and end of the run in one transaction.

    Raises `ConflictError` where the run was closed meanwhile; nothing is registered then.
    """
    now, verdict = context.clock(), candidate.verdict
    with context.database.write() as session:
        runs.lock(session, run_id)
        row = versions.register(
            session,
            version=versions.version_name(learner.base_model, now),
            workload=workload,
            base_model=learner.base_model,
            adapter_digest=candidate.digest,
            recipe=learner.recipe,
            objective=learner.objective,
            now=now,
            parent_version=None if candidate.parent is None else candidate.parent.version,
            training_dataset_id=candidate.dataset.dataset_id,
            performance_metrics=dict(candidate.evaluated[CANDIDATE].metrics),
            evaluation=_evaluation(candidate),
        )
        standing, reason = _place(context, session, row.version, candidate, workload=workload)
        row.status_reason = reason
        session.add(row)
        session.flush()
        acts.record(
            session,
            context.act(ACTOR, reason),
            action="register_version",
            subject=f"version:{row.version}",
            details={
                "workload": workload,
                "gate": "passed" if verdict.passed else "refused",
                "standing": standing,
                "parent": row.parent_version,
                "dataset": row.training_dataset_id,
                "adapter_digest": row.adapter_digest,
            },
        )
        result = RetrainResult(
            status="succeeded" if verdict.passed else "rejected",
            reason=reason,
            run_id=run_id,
            dataset_id=candidate.dataset.dataset_id,
            version=row.version,
            standing=standing,
        )
        runs.finish(
            session,
            run_id,
            status=result.status,
            reason=reason,
            now=now,
            dataset_id=result.dataset_id,
            version=result.version,
        )
        trail.training_ended(
            context, session, run_id, actor=ACTOR, status=result.status, reason=reason
        )
    return result


def _place(
    context: Context, session: Session, version: str, candidate: Candidate, *, workload: str
) -> tuple[Status, str]:
    """Give a registered version its standing; returns it with the reason."""
    settings, verdict = context.settings.experiment, candidate.verdict
    judged = "; ".join(verdict.reasons)
    if not verdict.passed:
        reason = f"the gate refused it: {judged}"
        versions.transition(session, version, Status.REJECTED, reason=reason, now=context.clock())
        return Status.REJECTED, reason
    serves_now = deployment.desired(session, workload).champion
    if serves_now != candidate.champion:
        now, then = _name(serves_now), _name(candidate.champion)
        reason = f"it passed the gate while {then} served, and now {now} does ({judged})"
        return Status.REGISTERED, reason
    hindered = rollout.obstacle(session, workload=workload, settings=settings, now=context.clock())
    if hindered is not None:
        return Status.REGISTERED, f"it passed the gate, and waits: {hindered} ({judged})"
    if not settings.enabled:
        reason = f"it passed the gate, and experiments are off ({judged})"
        experiments.deploy(session, context.act(ACTOR, reason), workload=workload, version=version)
        return Status.CHAMPION, reason
    reason = f"it passed the gate, and {rollout.first_step_text(settings)} ({judged})"
    rollout.begin(
        session,
        context.act(ACTOR, reason),
        workload=workload,
        version=version,
        settings=settings,
    )
    return Status(versions.get(session, version).deployment_status), reason


def _name(version: LiveVersion | None) -> str:
    return "the base model" if version is None else f"'{version.version}'"


def _evaluation(candidate: Candidate) -> dict[str, Any]:
    """What is kept of how the version was judged."""

    def told(evaluated: Evaluated) -> dict[str, Any]:
        scores = evaluated.scores
        by_tool: Mapping[str, Any] = {
            tool: {"num_samples": score.num_samples, "accuracy": score.accuracy}
            for tool, score in scores.by_tool.items()
        }
        return {
            "accuracy": scores.accuracy,
            "num_samples": scores.num_samples,
            "by_tool": by_tool,
            "metrics": dict(evaluated.metrics),
            "by_tool_metrics": {tool: dict(found) for tool, found in evaluated.by_tool.items()},
            "by_language": {name: dict(found) for name, found in evaluated.by_language.items()},
        }

    champion = candidate.champion
    return {
        rollout.CHAMPION_THEN: None if champion is None else champion.version,
        **{name: told(evaluated) for name, evaluated in candidate.evaluated.items()},
        "gate": {"passed": candidate.verdict.passed, "reasons": list(candidate.verdict.reasons)},
        "training": dict(candidate.trained.metrics),
    }
