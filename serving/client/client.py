"""A client of the endpoint, for programs that have httpx and nothing else of this project's.

Logging is buffered: `log` and `feedback` return at once, a thread sends what waits in batches,
again and again until the endpoint takes it. Nothing that goes wrong there reaches the caller,
unless `raise_errors=True`: then both send at once and raise what went wrong.
"""

import asyncio
import itertools
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from types import TracebackType
from typing import Any, TypedDict, Unpack
from urllib.parse import quote

import httpx

from registry.clock import new_id, utc_now
from serving.client.outbox import Entry, Kind, OnDrop, Outbox, describe, encode
from serving.client.retry import Outcome, delay_s, is_retryable
from serving.client.sender import Sender
from serving.errors import ClientError

ATTEMPTS = 4
"""How often a request that somebody waits for is made, at most."""
MAX_PAUSE_S = 5.0
"""Where the endpoint asks for a longer pause, whoever waits is told instead."""


class Question(TypedDict, total=False):
    """What `generate` takes beside the text; see POST /api/generate."""

    workload: str
    language: str
    target_tool: str
    user_id: str
    session_id: str
    model_version: str
    max_tokens: int
    temperature: float
    top_p: float
    seed: int


class Opinion(TypedDict, total=False):
    """What a person says of an answer: a score of 1 to 5, a thumb of -1 to 1, words, a better
    answer."""

    score: int
    thumb: int
    feedback_text: str
    corrected_output: str


class Logged(TypedDict, total=False):
    """One answer of another model; see POST /api/interactions."""

    id: str
    created_at: datetime | str
    input_text: str
    messages: Sequence[Mapping[str, Any]]
    model_output: str
    error: str
    model_version: str
    workload: str
    user_id: str
    session_id: str
    target_tool: str
    language: str
    tokens_input: int
    tokens_output: int
    processing_time_ms: float
    feedback: Opinion


@dataclass(frozen=True)
class Answer:
    """What the model wrote, and the id that feedback refers to."""

    structured_prompt: str
    model_output: str
    tokens_used: int
    interaction_id: str
    model_version: str
    role: str


@dataclass(frozen=True)
class Page:
    """A page of somebody's answers, newest first; `next` is the cursor of the next page."""

    interactions: Sequence[dict[str, Any]]
    next: str | None


def _refuse_no_endpoint(url: str) -> None:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ClientError(f"'{url}' is no URL: {error}") from error
    # What cannot stand in the name of a host is quoted.
    if parsed.scheme not in ("http", "https") or not parsed.host or "%" in parsed.host:
        raise ClientError(f"'{url}' must be http:// or https:// and a host")


class _Base:
    """What both clients share: where the endpoint is, and what waits to be sent."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        capacity: int = 10_000,
        flush_every_s: float = 1.0,
        raise_errors: bool = False,
        on_drop: OnDrop | None = None,
    ) -> None:
        """`capacity`: what may wait to be sent; beyond it, what is new is dropped.

        `on_drop` is told of everything that will not arrive, from another thread.
        Raises `ClientError` for a URL that is none.
        """
        _refuse_no_endpoint(url)
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._options: dict[str, Any] = {
            "base_url": url,
            "headers": headers,
            "timeout": timeout_s,
        }
        self._raise_errors = raise_errors
        self._outbox = Outbox(capacity=capacity, on_drop=on_drop)
        self._sender = Sender(self._outbox, self._connect, flush_every_s=flush_every_s)

    @property
    def num_dropped(self) -> int:
        """Interactions and feedback that will not arrive."""
        return self._outbox.num_dropped

    @property
    def num_waiting(self) -> int:
        """Interactions and feedback that are still to be sent."""
        return len(self._outbox)

    def _connect(self) -> httpx.Client:
        return httpx.Client(**self._options)

    def _enqueue(self, kind: Kind, interaction_id: str, value: dict[str, Any]) -> None:
        try:
            entry = Entry(kind, interaction_id, encode(value), new_id())
        except (TypeError, ValueError) as error:
            self._outbox.drop(Entry(kind, interaction_id, b"", ""), f"it is no JSON: {error}")
            return
        self._sender.put(entry)


class Client(_Base):
    """For programs with threads; safe to share between them, and usable after a fork."""

    _own: tuple[int, httpx.Client] | None = None

    def generate(self, text: str, **question: Unpack[Question]) -> Answer:
        """Have a structured prompt written. Raises `ClientError`."""
        content = _encoded({"text": text, **question})
        return _answer(self._request("POST", "/api/generate", content))

    def log(self, **interaction: Unpack[Logged]) -> str:
        """Write down what another model answered; its id, for feedback. Returns at once."""
        value = _logged(interaction)
        if self._raise_errors:
            self._request("POST", "/api/interactions", _encoded(value))
        else:
            self._enqueue("log", value["id"], value)
        return str(value["id"])

    def feedback(self, interaction_id: str, **opinion: Unpack[Opinion]) -> None:
        """Say what an answer was worth. Returns at once."""
        value = {"interaction_id": interaction_id, **opinion}
        if self._raise_errors:
            self._request("POST", "/api/feedback", _encoded(value))
        else:
            self._enqueue("feedback", interaction_id, value)

    def history(self, user_id: str, *, limit: int = 50, cursor: str | None = None) -> Page:
        """A page of a user's answers. Raises `ClientError`."""
        return _page(self._request("GET", _history_path(user_id, limit, cursor)))

    def flush(self, timeout_s: float = 30.0) -> bool:
        """Send now what waits; whether all of it is through within `timeout_s`."""
        return self._sender.flush(timeout_s)

    def close(self, timeout_s: float = 5.0) -> None:
        """Flush, and end. What is not through by then is dropped."""
        self._sender.close(timeout_s)
        if self._own is not None:
            self._own[1].close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    def _request(self, method: str, path: str, content: bytes | None = None) -> httpx.Response:
        headers = _headers(content)
        for attempt in itertools.count():
            try:
                outcome: Outcome = self._http().request(
                    method, path, content=content, headers=headers
                )
            except httpx.RequestError as error:
                outcome = error
            pause = _pause(attempt, outcome)
            if pause is None:
                return _checked(outcome)
            time.sleep(pause)
        raise AssertionError("unreachable")

    def _http(self) -> httpx.Client:
        # A forked child must not share its parent's sockets.
        if self._own is None or self._own[0] != os.getpid():
            self._own = os.getpid(), self._connect()
        return self._own[1]


class AsyncClient(_Base):
    """The same for asyncio. What is buffered is sent by a thread, whatever the loop does."""

    _own: tuple[asyncio.AbstractEventLoop, httpx.AsyncClient] | None = None

    async def generate(self, text: str, **question: Unpack[Question]) -> Answer:
        """Have a structured prompt written. Raises `ClientError`."""
        response = await self._request(
            "POST", "/api/generate", _encoded({"text": text, **question})
        )
        return _answer(response)

    async def log(self, **interaction: Unpack[Logged]) -> str:
        """Write down what another model answered; its id, for feedback. Returns at once."""
        value = _logged(interaction)
        if self._raise_errors:
            await self._request("POST", "/api/interactions", _encoded(value))
        else:
            self._enqueue("log", value["id"], value)
        return str(value["id"])

    async def feedback(self, interaction_id: str, **opinion: Unpack[Opinion]) -> None:
        """Say what an answer was worth. Returns at once."""
        value = {"interaction_id": interaction_id, **opinion}
        if self._raise_errors:
            await self._request("POST", "/api/feedback", _encoded(value))
        else:
            self._enqueue("feedback", interaction_id, value)

    async def history(self, user_id: str, *, limit: int = 50, cursor: str | None = None) -> Page:
        """A page of a user's answers. Raises `ClientError`."""
        return _page(await self._request("GET", _history_path(user_id, limit, cursor)))

    async def flush(self, timeout_s: float = 30.0) -> bool:
        """Send now what waits; whether all of it is through within `timeout_s`."""
        return await asyncio.to_thread(self._sender.flush, timeout_s)

    async def close(self, timeout_s: float = 5.0) -> None:
        """Flush, and end. What is not through by then is dropped."""
        await asyncio.to_thread(self._sender.close, timeout_s)
        if self._own is not None and self._own[0] is asyncio.get_running_loop():
            await self._own[1].aclose()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _request(
        self, method: str, path: str, content: bytes | None = None
    ) -> httpx.Response:
        headers = _headers(content)
        for attempt in itertools.count():
            try:
                outcome: Outcome = await self._http().request(
                    method, path, content=content, headers=headers
                )
            except httpx.RequestError as error:
                outcome = error
            pause = _pause(attempt, outcome)
            if pause is None:
                return _checked(outcome)
            await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    def _http(self) -> httpx.AsyncClient:
        # Connections belong to the loop that opened them.
        loop = asyncio.get_running_loop()
        if self._own is None or self._own[0] is not loop:
            self._own = loop, httpx.AsyncClient(**self._options)
        return self._own[1]


def _logged(interaction: Logged) -> dict[str, Any]:
    """With an id and a time, so that sending it again, or late, changes nothing."""
    given = {name: part for name, part in interaction.items() if part is not None}
    value: dict[str, Any] = {"id": new_id(), "created_at": utc_now(), **given}
    if isinstance(value["created_at"], datetime):
        value["created_at"] = value["created_at"].isoformat()
    return value


def _encoded(value: dict[str, Any]) -> bytes:
    try:
        return encode(value)
    except (TypeError, ValueError) as error:
        raise ClientError(f"it is no JSON: {error}") from error


def _headers(content: bytes | None) -> dict[str, str]:
    """One key for all attempts, so that a repeated one is not carried out twice."""
    if content is None:
        return {}
    return {"Content-Type": "application/json", "Idempotency-Key": new_id()}


def _pause(attempt: int, outcome: Outcome) -> float | None:
    """Seconds until the next attempt; None where there is none."""
    if not is_retryable(outcome) or attempt + 1 >= ATTEMPTS:
        return None
    pause = delay_s(attempt, outcome)
    return None if pause > MAX_PAUSE_S else pause


def _checked(outcome: Outcome) -> httpx.Response:
    if isinstance(outcome, httpx.RequestError):
        raise ClientError(f"the endpoint cannot be reached: {outcome!r}") from outcome
    if not outcome.is_success:
        raise ClientError(describe(outcome), status=outcome.status_code)
    return outcome


def _answer(response: httpx.Response) -> Answer:
    body = response.json()
    return Answer(**{field.name: body[field.name] for field in fields(Answer)})


def _history_path(user_id: str, limit: int, cursor: str | None) -> str:
    query = httpx.QueryParams({"limit": limit} | ({} if cursor is None else {"cursor": cursor}))
    return f"/api/history/{quote(user_id, safe='')}?{query}"


def _page(response: httpx.Response) -> Page:
    body = response.json()
    return Page(body["interactions"], body["next"])
