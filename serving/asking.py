"""What is asked of a model and what it answered, whatever protocol brings it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from registry import prompts
from registry.models import DEFAULT_WORKLOAD
from serving.jobs import Delta, Job, Reply
from serving.routing import Role


@dataclass(frozen=True)
class Client:
    """Where a request came from."""

    ip_address: str | None = None
    user_agent: str | None = None


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the answer is drawn."""

    max_new_tokens: int
    temperature: float
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One thing that somebody asks for."""

    messages: Sequence[Mapping[str, Any]]
    """The chat that the model is given."""
    text: str
    """What the person wrote, as it is logged."""
    sampling: Sampling
    workload: str = DEFAULT_WORKLOAD
    version: str | None = None
    """A version, "champion", "challenger" or the base model: answered by it, and not counted."""
    is_chat: bool = False
    """A conversation is logged whole; everything else is in the structured-prompt format."""
    target_tool: str | None = None
    language: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    client: Client = Client()
    asked_at: datetime | None = None
    """When the request came in."""

    def job(self, digest: str | None, *, traceparent: str | None = None) -> Job:
        """The work for a model replica, with one adapter (None: the base model)."""
        sampling = self.sampling
        return Job(
            messages=self.messages,
            digest=digest,
            max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            seed=sampling.seed,
            stop=sampling.stop,
            top_logprobs=sampling.top_logprobs,
            traceparent=traceparent,
        )

    def structured(self, output: str) -> str:
        """An output in its normal form; a chat's is the output itself."""
        if self.is_chat:
            return output
        return prompts.normalise(output, target_tool=self.target_tool)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of it, once it is durable."""

    choice: int
    """Which of the answers to one request, from 0."""
    id: str
    version: str
    """The version that answered; the base model's name where it was the base model."""
    role: Role
    output: str
    structured: str
    reply: Reply


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A part of an answer that is still being written."""

    choice: int
    id: str
    version: str
    delta: Delta
