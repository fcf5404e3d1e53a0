"""Turns chat examples into token ids, with the loss on the assistant's last turn.

Prompt and answer are tokenised apart, as they are when the model is used: the prompt's
ids are exactly what a serving engine would feed, the answer's what it should generate.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from training.errors import BaseModelError, DataError

if TYPE_CHECKING:
    # Reading examples must not cost whoever launches a run the import of transformers.
    from transformers import PreTrainedTokenizerBase

SOURCES = ("accepted", "corrected", "rehearsal")
"""Where an example's answer came from."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One conversation whose last turn, the assistant's, is to be learned."""

    id: str
    messages: tuple[Mapping[str, Any], ...]
    target_tool: str | None = None
    language: str | None = None
    weight: float = 1.0
    """How much each of its tokens counts in the loss; above 0."""
    source: str = "accepted"


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One example as token ids; the last `num_learned` of them carry the loss."""

    input_ids: npt.NDArray[np.int32]
    num_learned: int
    weight: float = 1.0
    target_tool: str = ""

    @property
    def weighted_tokens(self) -> float:
        """What the example adds to the loss's denominator."""
        return self.weight * self.num_learned


@dataclass(frozen=True, kw_only=True)
class EncodedDataset:
    """What can be learned from a file, and what was lost on the way."""

    examples: tuple[Encoded, ...]
    num_truncated: int
    """Examples whose prompt lost its beginning."""
    num_dropped: int
    """Examples whose answer alone is too long."""


def read_examples(path: Path) -> list[Example]:
    """Reads a JSONL file of training examples; DataError names the line that is wrong."""
    examples = []
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    examples.append(_example(line, where=f"{path.name}, line {number}"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if not examples:
        raise DataError(f"{path} holds no training examples.")
    return examples


def _example(line: str, *, where: str) -> Example:
    try:
        record = json.loads(line)
        weight = float(record.get("weight", 1.0))
        example = Example(
            id=str(record["id"]),
            messages=tuple(record["messages"]),
            target_tool=record.get("target_tool"),
            language=record.get("language"),
            weight=weight,
            source=record.get("source", "accepted"),
        )
        last_role = example.messages[-1]["role"] if example.messages else None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{where}: not a training example ({error!r}).") from error
    if last_role != "assistant":
        raise DataError(f"{where}: the last message must be the assistant's, not {last_role!r}.")
    if not (weight > 0 and math.isfinite(weight)):
        raise DataError(f"{where}: weight must be above 0, not {weight}.")
    if example.source not in SOURCES:
        raise DataError(f"{where}: source must be one of {', '.join(SOURCES)}.")
    return example


def prompt_text(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, Any]]) -> str:
    """The conversation as the model is prompted with it, up to where its answer starts."""
    return _render(tokenizer, messages, add_generation_prompt=True)


def completion_text(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, Any]], *, prompt: str
) -> str:
    """What the model should write after `prompt` for the last message, its end mark included."""
    full = _render(tokenizer, messages, add_generation_prompt=False)
    if not full.startswith(prompt):
        raise BaseModelError(
            "The base's chat template renders a conversation differently once the answer is "
            "there, so the answer's tokens cannot be told from the prompt's."
        )
    return full[len(prompt) :]


def _render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool,
) -> str:
    if not tokenizer.chat_template:
        raise BaseModelError(
            f"The base {tokenizer.name_or_path!r} has no chat template; use a chat model."
        )
    # Templates that know of a thinking block leave it empty; the others ignore the flag.
    return str(
        tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            enable_thinking=False,
        )
    )


def encode(
    example: Example, tokenizer: PreTrainedTokenizerBase, *, max_tokens: int
) -> tuple[Encoded, bool] | None:
    """The example as ids and whether its prompt was cut; None when the answer alone is too long.

    A prompt loses its beginning, never its end; an answer is never cut, since a cut one
    would teach the model not to stop.
    """
    prompt = prompt_text(tokenizer, example.messages[:-1])
    completion = completion_text(tokenizer, example.messages, prompt=prompt)
    prompt_ids: list[int] = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    answer_ids = _until_end(tokenizer(completion, add_special_tokens=False)["input_ids"], tokenizer)
    room = max_tokens - len(answer_ids)
    if room < 1 or not prompt_ids:
        return None
    kept = prompt_ids[-room:]
    encoded = Encoded(
        input_ids=np.asarray(kept + answer_ids, dtype=np.int32),
        num_learned=len(answer_ids),
        weight=example.weight,
        target_tool=example.target_tool or "",
    )
    return encoded, len(kept) < len(prompt_ids)


def _until_end(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """`ids` up to the end token: what a template puts after it is never generated."""
    end = tokenizer.eos_token_id
    return ids[: ids.index(end) + 1] if end in ids else [*ids, end]


def encode_all(
    examples: Iterable[Example], tokenizer: PreTrainedTokenizerBase, *, max_tokens: int
) -> EncodedDataset:
    """Encodes every example; DataError when nothing is left to learn."""
    encoded = []
    num_truncated = num_dropped = 0
    for example in examples:
        result = encode(example, tokenizer, max_tokens=max_tokens)
        if result is None:
            num_dropped += 1
            continue
        encoded.append(result[0])
        num_truncated += result[1]
    if not encoded:
        raise DataError(
            f"Nothing is left to learn: of {num_dropped} examples every answer is longer "
            f"than max_tokens = {max_tokens}."
            if num_dropped
            else "Nothing to learn: the dataset is empty."
        )
    return EncodedDataset(
        examples=tuple(encoded), num_truncated=num_truncated, num_dropped=num_dropped
    )
