"""What is known of the request that is being answered, for its log line and its metrics."""

from contextvars import ContextVar
from dataclasses import dataclass, field

from serving.jobs import Reply


@dataclass(frozen=True)
class Answered:
    """What a model replied, and as whose."""

    reply: Reply
    workload: str
    version: str
    role: str


@dataclass
class RequestFacts:
    """One request; whoever answers it fills in what it learns."""

    request_id: str
    traceparent: str | None = None
    is_sent_id: bool = False
    """Whether the id came with the request."""
    workload: str = ""
    version: str = ""
    role: str = ""
    answered: list[Answered] = field(default_factory=list)
    """A request may ask for several answers, and ask again where one failed."""


_current: ContextVar[RequestFacts | None] = ContextVar("request_facts", default=None)


def begin(facts: RequestFacts) -> None:
    """The running task answers this request from now on."""
    _current.set(facts)


def current() -> RequestFacts | None:
    """The request that the running task answers; None outside of any."""
    return _current.get()


def note_reply(reply: Reply, *, workload: str, version: str, role: str) -> None:
    """A model has answered the running task's request."""
    facts = _current.get()
    if facts is not None:
        facts.answered.append(Answered(reply, workload, version, role))
        facts.workload, facts.version, facts.role = workload, version, role
