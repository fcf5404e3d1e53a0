from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from training.base import load_tokenizer
from training.encoding import Example, encode, encode_all, prompt_text, read_examples
from training.errors import BaseModelError, DataError

QUESTION = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Hello"}


def _example(prompt: str, answer: str) -> Example:
    return Example(
        id="e",
        messages=({"role": "user", "content": prompt}, {"role": "assistant", "content": answer}),
    )


def test_loss_covers_the_answer_and_its_end_and_nothing_else(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    result = encode(_example("Hi", "Hello Zoë"), tokenizer, max_tokens=64)
    assert result is not None
    encoded, truncated = result
    ids = encoded.input_ids.tolist()
    first = len(ids) - encoded.num_learned
    assert not truncated
    assert tokenizer.decode(ids[first:]) == "Hello Zoë<|im_end|>"
    assert (
        tokenizer.decode(ids[:first]) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_only_the_last_assistant_turn_is_learned(tokenizer: PreTrainedTokenizerBase) -> None:
    turns = [("user", "a"), ("assistant", "first"), ("user", "b"), ("assistant", "second")]
    messages = tuple({"role": role, "content": text} for role, text in turns)
    result = encode(Example(id="e", messages=messages), tokenizer, max_tokens=128)
    assert result is not None
    ids = result[0].input_ids.tolist()
    assert tokenizer.decode(ids[-result[0].num_learned :]) == "second<|im_end|>"
    assert "first" in tokenizer.decode(ids)


def test_a_long_prompt_loses_its_beginning(tokenizer: PreTrainedTokenizerBase) -> None:
    dataset = encode_all(
        [_example("x" * 99 + "END", "ok"), _example("short", "ok")], tokenizer, max_tokens=48
    )
    assert (dataset.num_truncated, dataset.num_dropped) == (1, 0)
    cut = dataset.examples[0]
    assert len(cut.input_ids) == 48
    assert cut.num_learned == len("ok") + 1
    assert "END<|im_end|>" in tokenizer.decode(cut.input_ids.tolist())


def test_answers_that_are_too_long_are_dropped_and_counted(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    long, short = _example("p", "y" * 64), _example("p", "ok")
    dataset = encode_all([long, short], tokenizer, max_tokens=32)
    assert (len(dataset.examples), dataset.num_dropped) == (1, 1)
    with pytest.raises(DataError, match="of 1 examples every answer is empty or longer"):
        encode_all([long], tokenizer, max_tokens=32)
    with pytest.raises(DataError, match="the dataset is empty"):
        encode_all([], tokenizer, max_tokens=32)


def test_answers_that_say_nothing_are_dropped_and_counted(
    tokenizer: PreTrainedTokenizerBase, examples: list[Example]
) -> None:
    question = {"role": "user", "content": "Say nothing"}
    silent = [
        Example(id=str(number), messages=(question, {"role": "assistant", "content": said}))
        for number, said in enumerate(("", " \n", None))
    ]
    data = encode_all([*examples, *silent], tokenizer, max_tokens=128)
    assert (len(data.examples), data.num_dropped) == (len(examples), 3)
    with pytest.raises(DataError, match="of 3 examples every answer is empty or longer"):
        encode_all(silent, tokenizer, max_tokens=128)


def test_control_tokens_that_people_spell_are_taken_out(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    spelled = _example("Hi<|im_end|>\n<|im_start|>system", "It ends with <|im_end|>, it does")
    plain = _example("Hi\nsystem", "It ends with , it does")
    found, expected = (
        encode_all([replace(example, rejected=rejected)], tokenizer, max_tokens=128).examples[0]
        for example, rejected in ((spelled, "<|im_<|im_end|>end|>no"), (plain, "no"))
    )
    assert found.input_ids.tolist() == expected.input_ids.tolist()
    assert found.rejected is not None
    assert expected.rejected is not None
    assert found.rejected.input_ids.tolist() == expected.rejected.input_ids.tolist()
    assert found.num_learned == expected.num_learned


def test_an_answer_of_control_tokens_says_nothing(tokenizer: PreTrainedTokenizerBase) -> None:
    silent, other = _example("Hi", " <|im_end|>"), _example("Hi", "Hello")
    data = encode_all([silent, other], tokenizer, max_tokens=64)
    assert (len(data.examples), data.num_dropped) == (1, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"messages": ({"role": "user", "content": "\ud83d"}, ANSWER)},
        {"messages": ({"role": "user", "content": [{"text": "\ude00"}]}, ANSWER)},
        {"messages": (QUESTION, ANSWER | {"content": "Role: \ud83d, \ude00"})},
        {"rejected": "\ud83d"},
    ],
    ids=["prompt", "part", "answer", "rejected"],
)
def test_an_example_with_half_a_character_is_dropped_and_counted(
    change: dict[str, Any], tokenizer: PreTrainedTokenizerBase
) -> None:
    whole = Example(id="e", messages=(QUESTION, ANSWER | {"content": "Role: \U0001f600"}))
    data = encode_all([replace(whole, **change), whole], tokenizer, max_tokens=128)
    assert (len(data.examples), data.num_dropped) == (1, 1)
    unread = encode(replace(whole, **change), tokenizer, max_tokens=128, with_rejected=False)
    assert (unread is None) == ("rejected" not in change)


def test_a_rejected_answer_costs_nothing_where_it_is_not_read(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    plain = _example("What is it?", "ok")
    for rejected in ("n" * 40, "n" * 200):
        pair = replace(plain, rejected=rejected)
        read = encode(pair, tokenizer, max_tokens=64)
        assert read is None or read[1]  # it takes the prompt's room, or all of it
        (unread,) = encode_all([pair], tokenizer, max_tokens=64, with_rejected=False).examples
        (alone,) = encode_all([plain], tokenizer, max_tokens=64).examples
        assert unread.rejected is None
        assert unread.input_ids.tolist() == alone.input_ids.tolist()


def test_a_base_without_chat_template_is_refused(tiny_base: str) -> None:
    bare = load_tokenizer(tiny_base)
    bare.chat_template = None
    with pytest.raises(BaseModelError, match="has no chat template"):
        prompt_text(bare, [{"role": "user", "content": "Hi"}])


def test_a_template_that_hides_where_the_answer_starts_is_refused(tiny_base: str) -> None:
    odd = load_tokenizer(tiny_base)
    odd.chat_template = "{{ messages | length }}{{ messages[-1]['content'] }}"
    with pytest.raises(BaseModelError, match="renders a conversation differently"):
        encode(_example("Hi", "Hello"), odd, max_tokens=64)


def test_what_the_template_renders_in_another_way_is_dropped_alone(tiny_base: str) -> None:
    thinking = load_tokenizer(tiny_base)
    # As Qwen3's does it: what an answer says before the mark goes into a block of its own.
    thinking.chat_template = (
        "{% for m in messages %}{{ m['role'] }}:"
        "{% if '</think>' in m['content'] %}<think>{{ m['content'].split('</think>')[0] }}"
        "{{ m['content'].split('</think>')[1] }}{% else %}-{{ m['content'] }}{% endif %};"
        "{% endfor %}{% if add_generation_prompt %}assistant:-{% endif %}"
    )
    call = Example(
        id="c",
        messages=(
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]},
            {"role": "assistant", "content": "Hello"},
        ),
    )
    odd = _example("Hi", "why</think>Hello")
    found = encode_all([odd, _example("Hi", "Hello"), call], thinking, max_tokens=64)
    assert (len(found.examples), found.num_dropped) == (2, 1)
    with pytest.raises(BaseModelError, match="renders a conversation differently"):
        encode_all([odd], thinking, max_tokens=64)


def test_records_are_read_with_their_defaults(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    path.write_text(json.dumps({"id": "1", "messages": messages}) + "\n\n")
    (example,) = read_examples(path)
    assert (example.weight, example.source, example.target_tool) == (1.0, "accepted", None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"messages": [{"role": "user", "content": "a"}]}, "must be the assistant's, not 'user'"),
        ({"messages": []}, "must be the assistant's, not None"),
        ({"weight": 0}, "weight must be above 0"),
        ({"weight": "much"}, "not a training example"),
        ({"source": "guessed"}, "source must be one of accepted, corrected, rehearsal"),
    ],
)
def test_a_wrong_record_is_named_by_its_line(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    good = {"id": "1", "messages": [{"role": "assistant", "content": "b"}]}
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps(good) + "\n" + json.dumps(good | change) + "\n")
    with pytest.raises(DataError, match=rf"train\.jsonl, line 2: .*{message}"):
        read_examples(path)


def test_an_empty_or_missing_file_is_a_data_error(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    with pytest.raises(DataError, match="holds no training examples"):
        read_examples(empty)
    with pytest.raises(DataError, match="cannot be read"):
        read_examples(tmp_path / "none.jsonl")


def test_a_completion_that_is_null_is_none(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    path.write_text(json.dumps({"id": "1", "messages": turns, "completion": None}))
    (example,) = read_examples(path)
    assert list(example.messages) == turns
