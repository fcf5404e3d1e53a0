"""What the rows of each format mean: from a row to what POST /api/interactions takes."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from flows.errors import UnreadableFileError
from flows.intake import values
from flows.intake.rows import Source
from flows.intake.values import RowError
from serving.recording.intake import text_of

Format = Literal["openai", "chatml", "usage", "columns"]
Nature = Literal["chat", "prompts"]

ALIASES: Mapping[str, tuple[str, ...]] = {
    "input_text": ("input_text", "prompt", "query", "question", "instruction", "input"),
    "messages": ("messages", "conversations"),
    "model_output": ("model_output", "response", "answer", "completion", "output"),
    "id": ("id", "interaction_id", "request_id"),
    "created_at": ("created_at", "timestamp", "startTime", "created"),
    "user_id": ("user_id", "user"),
    "session_id": ("session_id", "conversation_id", "thread_id"),
    "model_version": ("model_version", "model"),
    "target_tool": ("target_tool",),
    "language": ("language",),
    "tokens_input": ("tokens_input", "prompt_tokens"),
    "tokens_output": ("tokens_output", "completion_tokens"),
    "processing_time_ms": ("processing_time_ms", "latency_ms"),
    "error": ("error",),
    "score": ("feedback_score",),
    "thumb": ("user_feedback", "thumb"),
    "feedback_text": ("feedback_text",),
    "corrected_output": ("corrected_output",),
}
"""Columns that are taken for a field without `--map`, the first that there is."""
RATING = "rating"
UNCLEAR = (
    "may be a score from 1 to 5 or a thumb (-1, 0, 1): say --map score=rating or --map thumb=rating"
)
FEEDBACK = ("score", "thumb", "feedback_text", "corrected_output")
NO_TURNS = "there is no list of messages"
SPEAKERS = {"human": "user", "gpt": "assistant", "bot": "assistant"}
CONVERT: Mapping[str, Callable[[Any], Any]] = {
    "id": values.label,
    "user_id": values.label,
    "session_id": values.label,
    "model_version": values.label,
    "tokens_input": values.integer,
    "tokens_output": values.integer,
    "processing_time_ms": values.number,
    "score": values.integer,
    "thumb": values.thumb,
    "messages": values.turns,
}
_BEGIN, _END = re.compile(r"<\|im_start\|>(\w+)\n"), "<|im_end|>"


@dataclass(frozen=True)
class Reading:
    """How rows are read: the format, and which column is which field."""

    format: Format
    nature: Nature
    columns: Mapping[str, Sequence[str]]
    """Field → columns that may hold it, for what the format does not settle."""
    mapped: Collection[str] = ()
    """Fields whose column was named: that wins."""

    def fields(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a row, feedback among them. Raises `RowError`."""
        found = _pick(row, self.columns)
        if _is_unclear(row, self.columns):
            raise RowError(RATING, UNCLEAR)
        if self.format == "openai":
            named = {name: value for name, value in found.items() if name in self.mapped}
            found |= _openai(row) | named
        elif self.format == "chatml":
            found |= _chatml(row)
        elif self.format == "usage":
            # 0 stands for "not measured"; `token_count` counts words, so it is left out.
            found["processing_time_ms"] = found.get("processing_time_ms") or None
        self._complete(row, found)
        if self.nature == "chat" and "messages" not in found and "input_text" in found:
            found["messages"] = [{"role": "user", "content": found.pop("input_text")}]
        elif "messages" in found:
            _split_off_answer(found)
            if self.nature == "prompts" and self.format != "columns":
                found["input_text"] = _asked(found.pop("messages"))
        return {name: value for name, value in found.items() if not values.is_missing(value)}

    def _complete(self, row: Mapping[str, Any], found: dict[str, Any]) -> None:
        """What Alpaca and ShareGPT files say beside the request belongs to it."""
        instruction, rest, system = (row.get(name) for name in ("instruction", "input", "system"))
        is_named = {"input_text", "messages"} & set(self.mapped)
        is_taken = _says(instruction) and found.get("input_text") == instruction
        if is_taken and _says(rest) and not is_named:
            found["input_text"] = f"{instruction}\n\n{rest}"
        turns = found.get("messages")
        if not _says(system) or not isinstance(turns, list) or not turns:
            return
        if _dict(turns[0]).get("role") != "system":
            found["messages"] = [{"role": "system", "content": system}, *turns]


def choose(
    source: Source,
    sample: Mapping[str, Any],
    *,
    wanted: Format | None,
    mapping: Mapping[str, str],
    nature: Nature | None,
) -> Reading:
    """How to read `source`, judged by its first row. Raises `UnreadableFileError`."""
    names = source.columns or tuple(sample)
    for field, column in mapping.items():
        if field not in ALIASES:
            known = ", ".join(ALIASES)
            raise UnreadableFileError(f"--map {field}={column}: there is no field {field}: {known}")
        if source.columns is not None and not {column, column.partition(".")[0]} & set(names):
            raise UnreadableFileError(f"--map {field}={column}: {_has(names)}")
    found = wanted or _detect(source, sample, names, mapping)
    columns = {field: aliases for field, aliases in ALIASES.items() if field not in mapping}
    columns |= {field: (column,) for field, column in mapping.items()}
    if _is_unclear(sample, columns):
        raise UnreadableFileError(f"the column '{RATING}' {UNCLEAR}")
    if found in ("openai", "chatml"):
        columns = {name: found for name, found in columns.items() if name not in TEXTS}
    elif not _has_texts(columns, {*names, *mapping.values()}):
        raise UnreadableFileError(
            f"no column is known to hold the request or the answer. {_has(names)} "
            "Say which: --map input_text=… --map model_output=…"
        )
    nature = nature or ("prompts" if found == "columns" else "chat")
    return Reading(found, nature, columns, frozenset(mapping))


def _is_unclear(row: Mapping[str, Any], columns: Mapping[str, Sequence[str]]) -> bool:
    """Whether a row has a rating of which nobody has said what it is, and no other opinion."""
    if values.is_missing(row.get(RATING)) or any(RATING in names for names in columns.values()):
        return False
    given = [columns[name] for name in ("score", "thumb")]
    is_said = given != [ALIASES[name] for name in ("score", "thumb")]
    return not is_said and all(values.is_missing(_at(row, one)) for names in given for one in names)


def _says(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _has_texts(columns: Mapping[str, Sequence[str]], names: set[str]) -> bool:
    def has(field: str) -> bool:
        return any(name in names for name in columns[field])

    return has("messages") or (has("input_text") and has("model_output"))


TEXTS = ("input_text", "messages", "model_output")


def _detect(
    source: Source, sample: Mapping[str, Any], names: Sequence[str], mapping: Mapping[str, str]
) -> Format:
    if source.table == "usage":
        return "usage"
    if set(mapping) & set(TEXTS):
        return "columns"
    if _response_of(sample) is not None:
        return "openai"
    if {"messages", "conversations"} & set(names) and "model_output" not in names:
        return "chatml"
    if isinstance(sample.get("text"), str) and any(_turns_in(sample["text"])):
        return "chatml"
    return "columns"


def _has(names: Sequence[str]) -> str:
    return f"The file has: {', '.join(str(name)[:40] for name in names[:40])}."


def _pick(row: Mapping[str, Any], columns: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field, names in columns.items():
        cells = (_at(row, name) for name in names)
        value = next((cell for cell in cells if not values.is_missing(cell)), None)
        if value is not None:
            found[field] = CONVERT[field](value) if field in CONVERT else value
    return found


def _at(row: Mapping[str, Any], column: str) -> Any:
    """The value of a column; "a.b" looks into nested ones."""
    if column in row or "." not in column:
        return row.get(column)
    value: Any = row
    for part in column.split("."):
        value = _dict(value).get(part)
    return value


def _dict(value: Any) -> dict[str, Any]:
    found = values.decoded(value)
    return found if isinstance(found, dict) else {}


def _response_of(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The chat completion in a row, wherever proxies put it."""
    response = _dict(row.get("response"))
    for candidate in (_dict(response.get("body")), response, row):
        if isinstance(values.decoded(candidate.get("choices")), list):
            return dict(candidate)
    return None


def _request_of(row: Mapping[str, Any]) -> dict[str, Any]:
    for candidate in (_dict(row.get("request")), _dict(row.get("body")), row):
        inner = _dict(candidate.get("body"))
        for found in (inner, candidate):
            if isinstance(values.decoded(found.get("messages")), list):
                return dict(found)
    raise RowError("messages", "there is no request with messages")


def _openai(row: Mapping[str, Any]) -> dict[str, Any]:
    request, response = _request_of(row), _response_of(row) or {}
    choices = values.decoded(response.get("choices")) or [{}]
    message = _dict(_dict(choices[0]).get("message"))
    found = {
        "messages": values.turns(request["messages"]),
        "model_output": _answer_of(message),
        "id": values.label(response.get("id")),
        "created_at": response.get("created"),
        "model_version": response.get("model") or request.get("model"),
        "user_id": values.label(request.get("user")),
    }
    usage = _dict(response.get("usage"))
    found["tokens_input"] = values.integer(usage.get("prompt_tokens"))
    found["tokens_output"] = values.integer(usage.get("completion_tokens"))
    return {name: value for name, value in found.items() if not values.is_missing(value)}


def _answer_of(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    text = text_of(content) if isinstance(content, str | list) else ""
    if not text.strip():
        raise RowError("model_output", "the answer holds no text")
    return text


def _chatml(row: Mapping[str, Any]) -> dict[str, Any]:
    turns = values.turns(row.get("messages") or row.get("conversations"))
    if turns is None and isinstance(row.get("text"), str):
        turns = list(_turns_in(row["text"]))
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise RowError("messages", NO_TURNS)
    return {"messages": [_turn(turn) for turn in turns]}


def _turns_in(text: str) -> Iterator[dict[str, Any]]:
    for ended in text.split(_END)[:-1]:
        if begun := _BEGIN.search(ended):
            yield {"role": begun[1], "content": ended[begun.end() :]}


def _turn(turn: dict[str, Any]) -> dict[str, Any]:
    """A turn in the form of OpenAI; ShareGPT says from and value."""
    if "from" not in turn or "role" in turn:
        return turn
    speaker = str(turn["from"])
    return {"role": SPEAKERS.get(speaker, speaker), "content": turn.get("value")}


def _asked(turns: Any) -> str | None:
    """What the user said last. Raises `RowError`."""
    if not isinstance(turns, list):
        raise RowError("messages", NO_TURNS)
    texts = [
        text_of(_dict(turn).get("content")) for turn in turns if _dict(turn).get("role") == "user"
    ]
    return texts[-1] if texts else None


def _split_off_answer(found: dict[str, Any]) -> None:
    """Where the answer is the chat's last turn, take it from there."""
    turns = found["messages"]
    found.pop("input_text", None)
    if not values.is_missing(found.get("model_output")) or not isinstance(turns, list):
        return
    if not turns or not isinstance(turns[-1], dict) or turns[-1].get("role") != "assistant":
        raise RowError("messages", "the last message is not the assistant's")
    found["model_output"] = _answer_of(turns[-1])
    found["messages"] = turns[:-1]
