"""Answers in the shapes of OpenAI's chat completions, whole and in chunks."""

import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

from typing_extensions import TypedDict

from serving import events
from serving.asking import Answer, Piece
from serving.jobs import TokenLogprob
from serving.problems import from_unexpected


class Usage(TypedDict):
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Message(TypedDict):
    """What the model says."""

    role: str
    content: str
    refusal: str | None


class Choice(TypedDict):
    """One of the answers."""

    index: int
    message: Message
    logprobs: dict[str, Any] | None
    finish_reason: str


class Completion(TypedDict):
    """A whole completion; its id is the id of the interaction."""

    id: str
    object: str
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


def completion(answers: Sequence[Answer], *, with_logprobs: bool) -> Completion:
    """A whole completion; its id is the first answer's."""
    first = answers[0]
    return {
        "id": first.id,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": first.version,
        "choices": [
            {
                "index": answer.choice,
                "message": {"role": "assistant", "content": answer.output, "refusal": None},
                "logprobs": _logprobs(answer.reply.logprobs) if with_logprobs else None,
                "finish_reason": answer.reply.finish,
            }
            for answer in answers
        ],
        "usage": _usage(answers),
    }


class Chunks:
    """Turns the pieces of one completion into chunks."""

    def __init__(self, *, with_logprobs: bool, with_usage: bool) -> None:
        self._with_logprobs = with_logprobs
        self._with_usage = with_usage
        self._created = int(time.time())
        self._id = ""
        self._model = ""
        self._begun: set[int] = set()
        self._answers: list[Answer] = []

    async def events(self, pieces: AsyncGenerator[Piece | Answer]) -> AsyncGenerator[str]:
        """The events of a stream, [DONE] last; an error on the way is an event too."""
        try:
            async for item in pieces:
                for chunk in self._chunks(item):
                    yield events.event(chunk)
        except Exception as error:  # too late for a status: the stream itself has to say it
            yield events.event(from_unexpected(error).openai_body())
            return
        if self._with_usage:
            yield events.event(self._chunk([], usage=_usage(self._answers)))
        yield events.DONE

    def _chunks(self, item: Piece | Answer) -> Iterator[dict[str, Any]]:
        if not self._id:
            self._id = item.id.removesuffix(f"-{item.choice}") if item.choice else item.id
            self._model = item.version
        if item.choice not in self._begun:
            self._begun.add(item.choice)
            yield self._choice(item.choice, {"role": "assistant", "content": "", "refusal": None})
        if isinstance(item, Piece):
            delta = item.delta
            logprobs = _logprobs(delta.logprobs) if self._with_logprobs else None
            yield self._choice(item.choice, {"content": delta.text}, logprobs=logprobs)
        else:
            self._answers.append(item)
            yield self._choice(item.choice, {}, finish=item.reply.finish)

    def _choice(
        self,
        index: int,
        delta: dict[str, Any],
        *,
        logprobs: dict[str, Any] | None = None,
        finish: str | None = None,
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return self._chunk([choice])

    def _chunk(
        self, choices: list[dict[str, Any]], *, usage: Usage | None = None
    ) -> dict[str, Any]:
        chunk: dict[str, Any] = {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model,
            "choices": choices,
        }
        return {**chunk, "usage": usage} if self._with_usage else chunk


def _usage(answers: Sequence[Answer]) -> Usage:
    """The prompt counts once, as in OpenAI's API."""
    num_input = max(answer.reply.tokens_input for answer in answers)
    num_output = sum(answer.reply.tokens_output for answer in answers)
    return {
        "prompt_tokens": num_input,
        "completion_tokens": num_output,
        "total_tokens": num_input + num_output,
    }


def _logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    return {
        "content": [
            {
                **_token(token.token, token.logprob),
                "top_logprobs": [_token(*alternative) for alternative in token.top],
            }
            for token in tokens
        ],
        "refusal": None,
    }


def _token(token: str, logprob: float) -> dict[str, Any]:
    # A token that is a part of a character has no text of its own, and so no bytes to tell.
    is_whole = "\N{REPLACEMENT CHARACTER}" not in token
    return {"token": token, "logprob": logprob, "bytes": list(token.encode()) if is_whole else None}
