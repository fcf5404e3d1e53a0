"""What passes between a router and a model replica: plain values that travel anywhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    # Engines run where the registry's libraries are not installed.
    from serving.routing import Role

Status = Literal["ok", "not_loaded", "overloaded", "too_long", "unfit", "failed", "unreachable"]
"""Of what was asked itself: "too_long" for the model; "unfit" for its template, or for vLLM."""
CALLERS: frozenset[Status] = frozenset({"too_long", "unfit"})
"""No other replica or version would do better."""
Finish = Literal["stop", "length"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One chat to answer with one adapter."""

    messages: Sequence[Mapping[str, Any]]
    digest: str | None
    """Digest of the adapter; None is the base model."""
    max_new_tokens: int
    temperature: float
    top_p: float = 1.0
    top_k: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    """The answer ends before the first of these; they are not part of it."""
    top_logprobs: int | None = None
    """With each token its log-probability and this many alternatives; None: without."""
    traceparent: str | None = None
    """W3C trace context of the request, for an engine that takes part in traces."""


@dataclass(frozen=True)
class TokenLogprob:
    """One generated token, with natural log-probabilities before temperature and cuts."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()
    """The most probable tokens at this place, best first."""


@dataclass(frozen=True)
class Delta:
    """A piece of an answer that is still being written."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What became of a job. Failures are values, so that they cross processes unchanged."""

    status: Status
    detail: str = ""
    text: str = ""
    finish: Finish = "stop"
    """"length": the answer was cut at the job's limit, or at the end of the context."""
    tokens_input: int = 0
    tokens_output: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    batch_rows: int = 0
    """Rows in the step that brought the last token; 0 where the engine does not tell."""
    queue_ms: float = 0.0
    """From the arrival at the replica to the first step of its generation."""
    first_token_ms: float = 0.0
    """From the first step to the first token."""
    processing_ms: float = 0.0
    """From the first step to the last token."""

    @property
    def ok(self) -> bool:
        """Whether there is an answer."""
        return self.status == "ok"


class Models(Protocol):
    """The model replicas, as a router sees them."""

    async def generate(self, job: Job, *, role: Role) -> Reply:
        """Have `job` answered by a replica that serves `role`. Cancelling ends the work."""
        ...

    def stream(self, job: Job, *, role: Role) -> AsyncIterator[Delta | Reply]:
        """The same, piece by piece: deltas that make up the reply's text, then the reply.

        A job that fails before its first piece yields its reply alone. Closing the iterator
        ends the work.
        """
        ...
