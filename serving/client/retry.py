"""When to send a request again, and how long to wait before."""

import random
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

RETRYABLE = frozenset({408, 429})
"""And what begins with a 5, as proxies have numbers of their own for a server that is away."""
FINAL = frozenset({501, 505})
CONFLICT = 409
"""Retryable where it says when: the first request with this Idempotency-Key is under way."""
NOT_FOUND = 404
"""Retryable where it is no problem body: a proxy's whose endpoint is just not there."""
PROBLEM = "application/problem+json"
BASE_S = 0.2
CAP_S = 30.0
MAX_RETRY_AFTER_S = 300.0
"""A server that asks for a longer rest is asked again after this."""


Outcome = httpx.Response | httpx.RequestError
"""What came of a request: an answer, or none."""


def is_retryable(outcome: Outcome) -> bool:
    """Whether the same request may go through later."""
    if isinstance(outcome, httpx.RequestError) or may_pass(outcome.status_code):
        return True
    if outcome.status_code == NOT_FOUND:
        return not outcome.headers.get("content-type", "").startswith(PROBLEM)
    return outcome.status_code == CONFLICT and "retry-after" in outcome.headers


def may_pass(status: int) -> bool:
    """Whether a refusal with this status says nothing of the request itself."""
    return status in RETRYABLE or (status >= 500 and status not in FINAL)


def delay_s(
    attempt: int,
    outcome: Outcome,
    *,
    uniform: Callable[[float, float], float] = random.uniform,
) -> float:
    """Seconds to wait after the failed attempt number `attempt` (from 0).

    Full jitter below an exponentially growing bound, so that clients that failed together do
    not come back together; never earlier than the server's Retry-After.
    """
    jitter = uniform(0, min(CAP_S, BASE_S * 2 ** min(attempt, 20)))
    if isinstance(outcome, httpx.RequestError):
        return jitter
    return min(MAX_RETRY_AFTER_S, _retry_after_s(outcome.headers.get("retry-after"))) + jitter


def _retry_after_s(value: str | None) -> float:
    """Seconds, or an HTTP date (RFC 9110); whatever else is there counts as nothing."""
    if value is None:
        return 0.0
    if value.strip().isdecimal():
        return float(value[:9])
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
