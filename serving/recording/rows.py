"""The rows that are kept of what was asked."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from registry.features import Sample
from registry.interactions import Interaction
from registry.quality import Score, judge
from serving.asking import Ask
from serving.jobs import Reply
from serving.routing import Route

Judge = Callable[[str, Sample], Score | None]
"""What an answer is worth in a workload, and who says so; None: nobody can tell."""


def by_rule(_workload: str, sample: Sample) -> Score | None:
    """The rule's judgement, in any workload."""
    return judge(sample, None)


def storable(text: str) -> str:
    """PostgreSQL stores no NUL; a byte-level model may write one."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def answered(
    ask: Ask,
    route: Route,
    reply: Reply,
    *,
    row_id: str,
    now: datetime,
    judged_by: Judge = by_rule,
) -> Interaction:
    """The row of an answer, with its score."""
    output = storable(reply.text)
    sample = Sample(ask.text, output, ask.target_tool, ask.language, ask.is_chat)
    score = judged_by(ask.workload, sample) if reply.ok else None
    return Interaction(
        id=row_id,
        created_at=now,
        workload=ask.workload,
        input_text=ask.text,
        messages=[dict(message) for message in ask.messages] if ask.is_chat else None,
        structured_prompt=ask.structured(output),
        model_output=output,
        external_user_id=ask.user_id,
        session_id=ask.session_id,
        tokens_input=reply.tokens_input,
        tokens_output=reply.tokens_output,
        processing_time_ms=reply.processing_ms,
        queue_ms=reply.queue_ms,
        model_version=None if route.version is None else route.version.version,
        role=route.role,
        experiment_id=route.experiment_id,
        target_tool=ask.target_tool,
        language=ask.language,
        quality_score=None if score is None else score.value,
        scorer_version=None if score is None else score.scorer_version,
        ip_address=ask.client.ip_address,
        user_agent=ask.client.user_agent,
        asked_at=ask.asked_at,
    )


def rescored(row: Interaction, judged_by: Judge) -> Interaction:
    """A row that came from elsewhere with the score that an answer of our own would have."""
    if row.error is not None:
        return row
    is_chat = row.messages is not None
    sample = Sample(row.input_text, row.model_output, row.target_tool, row.language, is_chat)
    score = judged_by(row.workload, sample)
    if score is None:
        return replace(row, quality_score=None, scorer_version=None)
    return replace(row, quality_score=score.value, scorer_version=score.scorer_version)


def failed(
    ask: Ask, route: Route, reason: str, *, row_id: str, now: datetime, written: str = ""
) -> Interaction:
    """The row of a request that got no whole answer; `written` is how far the model came."""
    row = answered(ask, route, Reply(status="failed", text=written), row_id=row_id, now=now)
    return replace(
        row,
        error=reason,
        tokens_input=None,
        tokens_output=None,
        processing_time_ms=None,
        queue_ms=None,
    )
