"""What passes between a router and a model replica: plain values that travel anywhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from serving.routing import Role

Status = Literal["ok", "not_loaded", "overloaded", "too_long", "failed", "unreachable"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One chat to answer with one adapter."""

    messages: Sequence[Mapping[str, Any]]
    digest: str | None
    """Digest of the adapter; None is the base model."""
    max_new_tokens: int
    temperature: float
    top_p: float = 1.0
    seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What became of a job. Failures are values, so that they cross processes unchanged."""

    status: Status
    detail: str = ""
    text: str = ""
    tokens_input: int = 0
    tokens_output: int = 0
    queue_ms: float = 0.0
    """From the arrival at the replica to the start of its batch."""
    processing_ms: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether there is an answer."""
        return self.status == "ok"


class Models(Protocol):
    """The model replicas, as a router sees them."""

    async def generate(self, job: Job, *, role: Role) -> Reply:
        """Have `job` answered by a replica that serves `role`."""
        ...
