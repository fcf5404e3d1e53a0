"""The rows that are kept of what was asked."""

from dataclasses import replace
from datetime import datetime

from registry import quality
from registry.interactions import Interaction
from serving.asking import Ask
from serving.jobs import Reply
from serving.routing import Route


def storable(text: str) -> str:
    """PostgreSQL stores no NUL; a byte-level model may write one."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def answered(ask: Ask, route: Route, reply: Reply, *, row_id: str, now: datetime) -> Interaction:
    """The row of an answer. Only what is meant to be in the prompt format gets a score."""
    output = storable(reply.text)
    score = None if ask.is_chat else quality.score(output, target_tool=ask.target_tool)
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
        quality_score=score,
        scorer_version=None if score is None else quality.RULE_SCORER,
        ip_address=ask.client.ip_address,
        user_agent=ask.client.user_agent,
        asked_at=ask.asked_at,
    )


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
        quality_score=None,
        scorer_version=None,
    )
