"""One job in the engine: what it has been fed, what it has written, how it ends."""

from __future__ import annotations

import random
from collections.abc import Callable
from time import perf_counter

from serving.engine.cache import CacheRow
from serving.engine.model import ChatModel
from serving.engine.sampling import Alternatives, RowSampling
from serving.engine.stacked_lora import Adapter
from serving.engine.text import TextStream
from serving.jobs import Delta, Finish, Job, Reply, Status, TokenLogprob

Sink = Callable[[Delta | Reply], None]


class Request:
    """A submitted job. Only `read` and `cancel` may be called from outside the engine's thread."""

    def __init__(self, job: Job, sink: Sink, *, streaming: bool, rng: random.Random) -> None:
        """`sink` gets the deltas, where `streaming`, and the reply; `rng` seeds the unseeded."""
        self.job = job
        self.cancelled = False
        self.prompt: list[int] = []
        self.fault: Exception | None = None
        """Why its chat could not be turned into tokens."""
        self.adapter: Adapter | None = None
        self.row: CacheRow | None = None
        self.limit = 0
        """Tokens that it may write."""
        self.sampling = RowSampling(
            temperature=job.temperature,
            top_p=job.top_p,
            top_k=job.top_k,
            generator=random.Random(rng.getrandbits(63) if job.seed is None else job.seed),
        )
        self._sink = sink
        self._streaming = streaming
        self._written: list[int] = []
        self._logprobs: list[TokenLogprob] = []
        self._text: TextStream | None = None
        self._batch_rows = 0
        self._arrived = perf_counter()
        self._started = self._arrived
        self._first_token = self._arrived

    @property
    def unfed(self) -> int:
        """Tokens that the model has not seen yet; 1 once it writes."""
        fed = self.row.length if self.row is not None else 0
        return len(self.prompt) + len(self._written) - fed

    @property
    def size(self) -> int:
        """Characters of its chat, about: its roles and marks count too."""
        return len(str(self.job.messages))

    @property
    def is_read(self) -> bool:
        """Whether its chat has been turned into tokens, or could not be."""
        return bool(self.prompt) or self.fault is not None

    def read(self, model: ChatModel) -> None:
        """Turn its chat into tokens."""
        try:
            self.prompt = model.encode(self.job.messages)
        except Exception as error:
            # A chat template may raise anything; told where requests are refused.
            self.fault = error

    def cancel(self) -> None:
        """Have the engine forget it at its next step."""
        self.cancelled = True

    def start(self, model: ChatModel) -> None:
        """It leaves the queue."""
        self._started = perf_counter()
        # Text is needed while the answer grows only where somebody looks at it.
        if self._streaming or self.job.stop or self.job.top_logprobs is not None:
            self._text = TextStream(model.decode, self.job.stop)

    def next_tokens(self, count: int) -> list[int]:
        """The next `count` tokens to feed."""
        fed = self.row.length if self.row is not None else 0
        if fed >= len(self.prompt):
            return self._written[fed - len(self.prompt) :]
        return self.prompt[fed : fed + count]

    def write(
        self, token: int, worth: Alternatives | None, model: ChatModel, *, batch_rows: int
    ) -> Reply | None:
        """Take the token that the model has written; the reply, if that ends the answer."""
        if not self._written:
            self._first_token = perf_counter()
        self._batch_rows = batch_rows
        self._written.append(token)
        if token in model.ends:
            return self._end("stop", model, marked=True)
        if self._text is not None:
            self._text.push(token)
            if worth is not None:
                is_first = len(self._written) == 1
                told = (lambda one: model.decode([one])) if is_first else model.piece
                self._text.note(_told(token, worth, told))
            if self._text.stopped:
                return self._end("stop", model)
        if len(self._written) >= self.limit:
            return self._end("length", model)
        if self._text is not None:
            self._release(self._text)
        return None

    def fail(self, status: Status, detail: str) -> None:
        """End without an answer."""
        self.reply(Reply(status=status, detail=detail))

    def reply(self, reply: Reply) -> None:
        """Hand the reply over."""
        if not self.cancelled:
            self._sink(reply)

    def _release(self, text: TextStream, *, everything: bool = False) -> None:
        piece, logprobs = text.release(everything=everything)
        self._logprobs += logprobs
        if self._streaming and (piece or logprobs) and not self.cancelled:
            self._sink(Delta(piece, logprobs))

    def _end(self, finish: Finish, model: ChatModel, *, marked: bool = False) -> Reply:
        now = perf_counter()
        if self._text is None:
            text = model.decode(self._written[:-1] if marked else self._written)
        else:
            self._text.finish()
            self._release(self._text, everything=True)
            text = self._text.text
            finish = "stop" if self._text.stopped else finish
        return Reply(
            status="ok",
            text=text,
            finish=finish,
            tokens_input=len(self.prompt),
            tokens_output=len(self._written),
            logprobs=tuple(self._logprobs),
            batch_rows=self._batch_rows,
            queue_ms=(self._started - self._arrived) * 1000,
            first_token_ms=(self._first_token - self._started) * 1000,
            processing_ms=(now - self._started) * 1000,
        )


def _told(token: int, worth: Alternatives, text_of: Callable[[int], str]) -> TokenLogprob:
    top = tuple((text_of(other), logprob) for other, logprob in worth.top)
    return TokenLogprob(text_of(token), worth.logprob, top)
