"""Turns chat examples into token ids, with the loss on the assistant's last turn.

A line of a training file is an object with `id` and `messages`, the last of which is the
assistant's answer; the answer may stand in `completion` instead. A preference example has
besides it `rejected`, the answer that `completion` corrects, or `label`, whether people
liked the answer. `target_tool`, `language`, `weight` and `source` are optional.

Prompt and answer are tokenised apart, as they are when the model is used: the prompt's
ids are exactly what a serving engine would feed, the answer's what it should generate. What
people wrote holds no control token in either.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from registry.control_tokens import ControlTokens
from training.errors import BaseModelError, DataError

if TYPE_CHECKING:
    # Reading examples must not cost whoever launches a run the import of transformers.
    from transformers import PreTrainedTokenizerBase

SOURCES = ("accepted", "corrected", "rehearsal")
"""Where an example's answer came from."""
_SURROGATE = re.compile("[\ud800-\udfff]")


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
    rejected: str | None = None
    """The answer that the last turn is better than."""
    label: bool | None = None
    """What people said of the last turn, where that is all that is known: a thumb."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One example as token ids; the last `num_learned` of them carry the loss."""

    input_ids: npt.NDArray[np.int32]
    num_learned: int
    weight: float = 1.0
    target_tool: str = ""
    rejected: Encoded | None = None
    """The same prompt with a worse answer."""
    label: bool | None = None
    """Whether people liked the answer; None where it was accepted or corrected."""
    reference: float = 0.0
    """Log-likelihood of the answer, in nats, before the run; only preference losses ask."""

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of prompt and answer, and of the rejected answer with its prompt."""
        rejected = () if self.rejected is None else self.rejected.lengths
        return (len(self.input_ids), *rejected)

    @property
    def num_tokens(self) -> int:
        """All of them."""
        return sum(self.lengths)

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
    """Examples whose answer alone is too long or empty, whose text is broken, or that the template
    cannot render."""


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
        messages = tuple(record["messages"])
        if (completion := record.get("completion")) is not None:
            messages += ({"role": "assistant", "content": str(completion)},)
        example = Example(
            id=str(record["id"]),
            messages=messages,
            target_tool=record.get("target_tool"),
            language=record.get("language"),
            weight=weight,
            source=record.get("source", "accepted"),
            rejected=record.get("rejected"),
            label=record.get("label"),
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
    if example.rejected is not None and not isinstance(example.rejected, str):
        raise DataError(f"{where}: rejected must be a text, not {example.rejected!r}.")
    if example.label is not None and not isinstance(example.label, bool):
        raise DataError(f"{where}: label must be true or false, not {example.label!r}.")
    return example


_Labelled = TypeVar("_Labelled", Example, Encoded)


def judged_by(held_out: Sequence[_Labelled]) -> list[_Labelled]:
    """What a run can be judged by: the answers that were accepted. DataError for none."""
    accepted = [example for example in held_out if example.label is not False]
    if not accepted:
        raise DataError(
            f"Of {len(held_out)} validation examples none has an answer that was accepted: add "
            "some, or train without validation."
        )
    return accepted


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
    try:
        text = tokenizer.apply_chat_template(
            [_said(tokenizer, {**message, "content": _content(message)}) for message in messages],
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            enable_thinking=False,
        )
    except Exception as error:  # a template may raise anything on what it does not expect
        raise BaseModelError(
            f"The base's chat template cannot render a conversation: {error!r}"
        ) from error
    return str(text)


def _content(message: Mapping[str, Any]) -> Any:
    """A turn that only calls a tool may have none, and not every template expects that."""
    content = message.get("content")
    return "" if content is None else content


def _said(tokenizer: PreTrainedTokenizerBase, part: Any) -> Any:
    """A message, or a part of one, as it is when the model is used: nobody ends a turn, or begins
    another role's, by spelling a control token.
    """
    if isinstance(part, str):
        return _control_tokens(tokenizer).removed_from(part)
    if isinstance(part, Mapping):
        return {name: _said(tokenizer, value) for name, value in part.items()}
    if isinstance(part, Sequence):
        return [_said(tokenizer, each) for each in part]
    return part


@lru_cache(maxsize=8)
def _control_tokens(tokenizer: PreTrainedTokenizerBase) -> ControlTokens:
    return ControlTokens.of(tokenizer)


def encode(
    example: Example,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_tokens: int,
    with_rejected: bool = True,
) -> tuple[Encoded, bool] | None:
    """The example as ids and whether its prompt was cut; None when the answer alone is too long
    or says nothing, or where a text is broken.

    A prompt loses its beginning, never its end; an answer is never cut, since a cut one
    would teach the model not to stop. The rejected answer is as if it were not there, unless
    `with_rejected`.
    """
    if not _says_something(_said(tokenizer, example.messages[-1])):
        return None
    if not _is_text([example.messages, example.rejected if with_rejected else None]):
        return None
    prompt = prompt_text(tokenizer, example.messages[:-1])
    prompt_ids: list[int] = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    answers = [_answer_ids(tokenizer, example.messages, prompt=prompt)]
    if with_rejected and example.rejected is not None:
        other = (*example.messages[:-1], {"role": "assistant", "content": example.rejected})
        answers.append(_answer_ids(tokenizer, other, prompt=prompt))
    # Both answers of a pair follow the same prompt, however much of it is left.
    room = max_tokens - max(len(answer) for answer in answers)
    if room < 1 or not prompt_ids:
        return None
    kept = prompt_ids[-room:]
    chosen, *rejected = (
        Encoded(
            input_ids=np.asarray(kept + answer, dtype=np.int32),
            num_learned=len(answer),
            weight=example.weight,
            target_tool=example.target_tool or "",
        )
        for answer in answers
    )
    encoded = replace(chosen, rejected=rejected[0] if rejected else None, label=example.label)
    return encoded, len(kept) < len(prompt_ids)


def _says_something(answer: Mapping[str, Any]) -> bool:
    """An empty answer would leave the end mark alone to be learned: to say nothing."""
    return bool(str(answer.get("content") or "").strip() or answer.get("tool_calls"))


def _is_text(part: Any) -> bool:
    """Whether all of it is Unicode: JSON can spell half a character, which no tokenizer takes."""
    if isinstance(part, str):
        return not _SURROGATE.search(part)
    if isinstance(part, Mapping):
        return all(map(_is_text, part.values()))
    return not isinstance(part, Sequence) or all(map(_is_text, part))


def _answer_ids(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, Any]], *, prompt: str
) -> list[int]:
    completion = completion_text(tokenizer, messages, prompt=prompt)
    return _until_end(tokenizer(completion, add_special_tokens=False)["input_ids"], tokenizer)


def _until_end(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """`ids` up to the end token: what a template puts after it is never generated."""
    end = tokenizer.eos_token_id
    return ids[: ids.index(end) + 1] if end in ids else [*ids, end]


def encode_all(
    examples: Iterable[Example],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_tokens: int,
    with_rejected: bool = True,
) -> EncodedDataset:
    """Encodes every example; DataError when nothing is left to learn.

    An example that the base's template renders in a way that cannot be learned is left out,
    such as an answer that holds a thinking block; BaseModelError where it renders none.
    """
    encoded = []
    num_truncated = num_dropped = 0
    failure: BaseModelError | None = None
    for example in examples:
        try:
            result = encode(example, tokenizer, max_tokens=max_tokens, with_rejected=with_rejected)
        except BaseModelError as error:
            result, failure = None, error
        if result is None:
            num_dropped += 1
            continue
        encoded.append(result[0])
        num_truncated += result[1]
    if failure is not None and not encoded:
        raise failure
    if not encoded:
        raise DataError(
            f"Nothing is left to learn: of {num_dropped} examples every answer is empty or "
            f"longer than max_tokens = {max_tokens}, or stands among texts that are not Unicode."
            if num_dropped
            else "Nothing to learn: the dataset is empty."
        )
    return EncodedDataset(
        examples=tuple(encoded), num_truncated=num_truncated, num_dropped=num_dropped
    )
