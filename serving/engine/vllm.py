"""A vLLM server as the engine, over its OpenAI-compatible HTTP interface.

The server runs by itself, on machines with GPUs, and must see the replica's artifact cache under
the same path: adapters are loaded from there at run time, named by their digest. Start it with
VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and --enable-lora --generation-config vllm.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx

from serving.errors import AdapterError, EngineError
from serving.jobs import Delta, Finish, Job, Reply, Status, TokenLogprob

CONTROL_TIMEOUT_S = 60.0
"""For loading an adapter; answers have the routers' own deadline."""
NOT_FOUND = 404
LEAST_TOP_P = 1e-6
"""vLLM takes no 0, which means the likeliest token alone."""
_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError)
"""What an event raises that is not of the expected shape."""

logger = logging.getLogger(__name__)


class VllmEngine:
    """An `Engine` that passes jobs on; batching, caching and sampling are vLLM's."""

    def __init__(self, url: str, *, base: str) -> None:
        """`url` of the server, without /v1; `base`: the name under which it serves the base."""
        self._url = url.rstrip("/")
        self._base = base
        self._adapters: frozenset[str] = frozenset()
        self._client: httpx.AsyncClient | None = None

    @property
    def adapters(self) -> frozenset[str]:
        """Names of the loaded adapters."""
        return self._adapters

    @property
    def alive(self) -> bool:
        """Whether it has been started; a server out of reach fails its jobs, not the replica."""
        return self._client is not None

    def load(self, name: str, folder: Path) -> None:
        """Have the server load an adapter. Raises `AdapterError` with what it says."""
        answer = self._control("load", {"lora_name": name, "lora_path": str(folder.absolute())})
        # Another replica may have been first; under one digest there is one content.
        if not answer.is_success and "already been loaded" not in answer.text:
            raise AdapterError(f"vLLM refuses the adapter: {_message(answer.content)}")
        self._adapters |= {name}

    def unload(self, name: str) -> None:
        """Have the server let go of an adapter."""
        self._adapters -= {name}
        try:
            answer = self._control("unload", {"lora_name": name})
        except AdapterError as error:
            logger.warning("adapter %s stays loaded: %s", name, error)
            return
        if not answer.is_success and answer.status_code != NOT_FOUND:
            logger.warning("adapter %s stays loaded: %s", name, _message(answer.content))

    def start(self) -> None:
        """Begin to work."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        self._client = httpx.AsyncClient(base_url=self._url, timeout=None, limits=limits)

    async def stop(self) -> None:
        """End; jobs that are not answered yet fail."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def generate(self, job: Job) -> Reply:
        """Answer a job. Cancelling closes the connection, on which vLLM ends the work."""
        async with aclosing(self.stream(job)) as events:
            async for event in events:
                if isinstance(event, Reply):
                    return event
        raise EngineError("the engine ended an answer without a reply")

    async def stream(self, job: Job) -> AsyncGenerator[Delta | Reply, None]:
        """The same, piece by piece: deltas, then the reply. Closing ends the work."""
        if self._client is None:
            yield Reply(status="failed", detail="the engine has not been started")
            return
        answer = _Answer()
        try:
            body = _body(job, self._base)
            async with self._client.stream(
                "POST", "/v1/chat/completions", json=body, headers=_headers(job)
            ) as response:
                if not response.is_success:
                    if response.status_code == NOT_FOUND and job.digest is not None:
                        # A server that was started anew has none of them: load it again.
                        self._adapters -= {job.digest}
                    yield _refusal(response.status_code, _message(await response.aread()))
                    return
                async for line in _lines(response):
                    delta = answer.take(line)
                    if delta is not None:
                        yield delta
        except httpx.TransportError as error:
            detail = f"vLLM at {self._url} cannot be reached: {type(error).__name__}"
            yield Reply(status="failed", detail=detail)
            return
        except _UNREADABLE as error:
            yield Reply(status="failed", detail=f"vLLM's answer cannot be read: {error!r}")
            return
        yield answer.reply()

    def _control(self, verb: str, body: dict[str, str]) -> httpx.Response:
        try:
            url = f"{self._url}/v1/{verb}_lora_adapter"
            return httpx.post(url, json=body, timeout=CONTROL_TIMEOUT_S)
        except httpx.TransportError as error:
            raise AdapterError(f"vLLM at {self._url} cannot be reached: {error}") from error


class _Answer:
    """What the events of one answer have brought so far."""

    def __init__(self) -> None:
        self._started = perf_counter()
        self._first_token: float | None = None
        self._text = ""
        self._logprobs: list[TokenLogprob] = []
        self._finish: str | None = None
        self._usage: Mapping[str, int] = {}
        self._error: str | None = None

    def take(self, line: str) -> Delta | None:
        """A line of the event stream; the delta that it brings, if any."""
        kind, _, data = line.partition(": ")
        if kind != "data" or data == "[DONE]":
            return None
        event = json.loads(data)
        if "error" in event:
            self._error = _message(data.encode())
            return None
        self._usage = event.get("usage") or self._usage
        if not event["choices"]:
            return None
        choice = event["choices"][0]
        self._finish = choice.get("finish_reason") or self._finish
        text = choice["delta"].get("content") or ""
        logprobs = _logprobs(choice.get("logprobs"))
        if not text and not logprobs:
            return None
        self._first_token = self._first_token or perf_counter()
        self._text += text
        self._logprobs += logprobs
        return Delta(text, logprobs)

    def reply(self) -> Reply:
        """At the end of the stream."""
        now = perf_counter()
        if self._error is not None or self._finish not in ("stop", "length"):
            detail = self._error or f"vLLM ended the answer with {self._finish!r}"
            return Reply(status="failed", detail=detail)
        finish: Finish = "length" if self._finish == "length" else "stop"
        return Reply(
            status="ok",
            text=self._text,
            finish=finish,
            tokens_input=self._usage.get("prompt_tokens", 0),
            tokens_output=self._usage.get("completion_tokens", 0),
            logprobs=tuple(self._logprobs),
            # How long it waits in vLLM's queue is not told apart from its first step.
            first_token_ms=((self._first_token or now) - self._started) * 1000,
            processing_ms=(now - self._started) * 1000,
        )


async def _lines(response: httpx.Response) -> AsyncGenerator[str, None]:
    """The lines of an event stream. httpx's own would end them where a text has U+2028, too."""
    rest = b""
    async for chunk in response.aiter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r").decode()


def _headers(job: Job) -> dict[str, str]:
    return {} if job.traceparent is None else {"traceparent": job.traceparent}


def _body(job: Job, base: str) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": job.digest or base,
        "messages": [dict(message) for message in job.messages],
        "max_tokens": job.max_new_tokens,
        "temperature": job.temperature,
        "top_p": job.top_p or LEAST_TOP_P,
        "top_k": job.top_k or -1,
        "seed": job.seed,
        "stop": list(job.stop),
        "stream": True,
        "stream_options": {"include_usage": True},
        "chat_template_kwargs": {"enable_thinking": False},
    }
    if job.top_logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": job.top_logprobs}
    return body


def _logprobs(told: Mapping[str, Any] | None) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(
            entry["token"],
            entry["logprob"],
            tuple((other["token"], other["logprob"]) for other in entry["top_logprobs"]),
        )
        for entry in (told or {}).get("content") or ()
    )


def _refusal(code: int, message: str) -> Reply:
    status: Status = "failed"
    if code == NOT_FOUND:
        status = "not_loaded"
    elif code in (429, 503):
        status = "overloaded"
    elif code == 400:
        status = "too_long" if "context length" in message else "unfit"
    return Reply(status=status, detail=f"vLLM: {message}")


def _message(content: bytes) -> str:
    """What an error's body says: newer servers nest it, older ones do not."""
    try:
        error = json.loads(content)
        return str(error.get("error", error)["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return content.decode(errors="replace")[:300]
