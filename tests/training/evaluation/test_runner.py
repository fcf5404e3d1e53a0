from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from registry.prompts import TOOLS, render
from training.base import load_base, load_tokenizer
from training.encoding import Example, prompt_text
from training.errors import DataError
from training.evaluation.generate import generate_greedy
from training.evaluation.perplexity import reference_losses
from training.evaluation.runner import evaluate, evaluate_many
from training.evaluation.shots import with_shots
from training.evaluation.suite import (
    EvalExample,
    Evaluation,
    from_training,
    judge,
    summarise,
)
from training.lora import new_adapter, write_adapter


@pytest.fixture(scope="module")
def questions(examples: list[Example]) -> list[EvalExample]:
    """The training examples as questions."""
    return from_training(examples)


@pytest.fixture(scope="module")
def adapter(tiny_base: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that changes what the base says."""
    model = new_adapter(
        load_base(tiny_base), rank=4, alpha=8, dropout=0, target_modules="all-linear", seed=0
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.3)
    folder = tmp_path_factory.mktemp("adapter")
    write_adapter(model, folder, base_id=tiny_base)
    return folder


def test_batched_answers_are_those_of_transformers_one_by_one(
    tiny_base: str, tokenizer: PreTrainedTokenizerBase, questions: list[EvalExample]
) -> None:
    model = load_base(tiny_base)
    prompts = [prompt_text(tokenizer, question.messages) for question in questions]
    got = generate_greedy(model, tokenizer, prompts, max_new_tokens=12, batch_size=5)
    for prompt, answer in zip(prompts, got, strict=True):
        ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
        whole = model.generate(**ids, max_new_tokens=12, do_sample=False)[0].tolist()
        expected = whole[ids["input_ids"].shape[1] :]
        assert answer.ids == [token for token in expected if token != tokenizer.eos_token_id]
        assert answer.seconds > 0


def test_rows_that_end_leave_and_the_others_go_on(
    tiny_base: str, tokenizer: PreTrainedTokenizerBase, questions: list[EvalExample]
) -> None:
    model = load_base(tiny_base)
    prompts = [prompt_text(tokenizer, question.messages) for question in questions]
    written = generate_greedy(model, tokenizer, prompts, max_new_tokens=8, batch_size=12)
    free = [answer.ids for answer in written]
    # Taking a token that some rows choose in the middle for the end makes them stop there.
    end = next(answer[3] for answer in free if answer[3] not in answer[:3])

    early = load_tokenizer(tiny_base)
    early.eos_token = early.convert_ids_to_tokens(end)
    stopped = generate_greedy(model, early, prompts, max_new_tokens=8, batch_size=12)
    cut = [answer.ids for answer in stopped]
    expected = [answer[: answer.index(end)] if end in answer else answer for answer in free]
    assert cut == expected
    assert any(len(answer) < 8 for answer in cut)
    longest = max(answer.seconds for answer in stopped)
    assert all(answer.seconds < longest for answer in stopped if len(answer.ids) < 3)


def test_the_bare_base_answers_the_same_before_and_after_an_adapter(
    tiny_base: str, adapter: Path, questions: list[EvalExample]
) -> None:
    arms = {"base": None, "tuned": adapter, "base again": None}
    done = evaluate_many(
        base_model=tiny_base, arms=arms, examples=questions, max_new_tokens=8, batch_size=4
    )
    said = {name: [answer.output for answer in done[name].answers] for name in arms}
    assert said["base"] == said["base again"]
    assert said["base"] != said["tuned"]
    alone = evaluate(
        base_model=tiny_base, adapter=adapter, examples=questions, max_new_tokens=8, batch_size=12
    )
    assert [answer.output for answer in alone.answers] == said["tuned"]
    assert [answer.id for answer in alone.answers] == [question.id for question in questions]


def test_scores_are_given_overall_and_by_tool_and_survive_json() -> None:
    reference = render({name: name.lower() for name in TOOLS["email"]})
    email = EvalExample(
        id="1", messages=(), reference=reference, target_tool="email", language="ar"
    )
    note = EvalExample(id="2", messages=(), reference="some other words", target_tool="social")
    evaluation = summarise(
        [
            judge(email, reference, num_tokens=20),
            judge(email, reference.replace("Tone: tone", "Tone: grim"), num_tokens=20),
            judge(note, "nothing of the kind", num_tokens=5),
        ],
        seconds=1.5,
    )
    assert evaluation.overall.accuracy == pytest.approx(1 / 3)
    assert evaluation.overall.section_accuracy == pytest.approx(11 / 12)
    assert evaluation.overall.coherence == 1
    assert evaluation.overall.mean_tokens == 15
    assert evaluation.by_tool["email"].accuracy == 0.5
    assert evaluation.by_tool["social"].section_accuracy is None
    assert list(evaluation.by_tool) == ["email", "social"]
    assert evaluation.by_language["ar"].num_samples == 2
    low, high = evaluation.overall.accuracy_interval
    assert low <= evaluation.overall.accuracy <= high
    assert Evaluation.from_dict(json.loads(json.dumps(evaluation.to_dict()))) == evaluation


def test_perplexity_is_that_of_the_padded_model_on_its_own(
    tiny_base: str, tokenizer: PreTrainedTokenizerBase, questions: list[EvalExample]
) -> None:
    model = load_base(tiny_base)
    asked = [*questions, replace(questions[0], reference="x" * 600)]
    found = reference_losses(model, tokenizer, asked)
    for question, loss in zip(questions, found, strict=False):
        prompt = prompt_text(tokenizer, question.messages)
        answer = f"{question.reference}<|im_end|>"
        ids = tokenizer(prompt + answer, add_special_tokens=False, return_tensors="pt")
        learned = len(tokenizer(answer, add_special_tokens=False)["input_ids"])
        labels = ids["input_ids"].clone()
        labels[:, :-learned] = -100
        expected = model(**ids, labels=labels).loss.item()
        assert loss.num_tokens == learned
        assert loss.nats / learned == pytest.approx(expected, rel=1e-5)
    # The last one is longer than the model's context: nothing is made up for it.
    assert (found[-1].nats, found[-1].num_tokens) == (0, 0)

    scores = evaluate(base_model=tiny_base, adapter=None, examples=asked, max_new_tokens=4).overall
    nats, tokens = sum(one.nats for one in found), sum(one.num_tokens for one in found)
    assert scores.perplexity == pytest.approx(math.exp(nats / tokens))
    assert 0 < scores.latency_p50_s <= scores.latency_p95_s


def test_the_base_with_examples_in_its_prompt_is_one_more_arm(
    tiny_base: str, questions: list[EvalExample], examples: list[Example]
) -> None:
    done = evaluate_many(
        base_model=tiny_base,
        arms={"base": None},
        examples=questions[:3],
        max_new_tokens=4,
        shots=examples,
    )
    assert set(done) == {"base", "few-shot"}
    said = {name: [answer.output for answer in done[name].answers] for name in done}
    assert said["base"] != said["few-shot"]


def test_shots_are_of_the_questions_own_tool_corrections_first(
    questions: list[EvalExample], examples: list[Example]
) -> None:
    best = replace(examples[6], id="z", source="corrected")
    assert questions[0].target_tool == best.target_tool == "email"
    (shown,) = with_shots(questions[:1], [*examples, best], number=2)
    turns = [*best.messages, *examples[0].messages, *questions[0].messages]
    assert list(shown.messages) == turns
    assert shown.reference == questions[0].reference


def test_nothing_to_evaluate_on_is_refused(tiny_base: str) -> None:
    with pytest.raises(DataError, match="no examples to evaluate on"):
        evaluate(base_model=tiny_base, adapter=None, examples=[])
