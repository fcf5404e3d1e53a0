"""Has versions answer a set of examples, in this process."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedTokenizerBase

from training.bare_head import look_at_head
from training.base import load_base, load_tokenizer
from training.encoding import Example, prompt_text
from training.errors import DataError
from training.evaluation.generate import generate_greedy
from training.evaluation.perplexity import reference_losses
from training.evaluation.shots import FEW_SHOT, with_shots
from training.evaluation.suite import EvalExample, Evaluation, judge, summarise
from training.lora import attach_adapter


def evaluate(
    *,
    base_model: str,
    adapter: Path | None,
    examples: Sequence[EvalExample],
    max_new_tokens: int = 256,
    batch_size: int = 64,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Evaluation:
    """Greedy answers of the base with `adapter`, or of the bare base, and their scores."""
    return evaluate_many(
        base_model=base_model,
        arms={"": adapter},
        examples=examples,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
    )[""]


def evaluate_many(
    *,
    base_model: str,
    arms: Mapping[str, Path | None],
    examples: Sequence[EvalExample],
    max_new_tokens: int = 256,
    batch_size: int = 64,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    shots: Sequence[Example] = (),
) -> dict[str, Evaluation]:
    """The same examples for every arm: an adapter by name, None for the bare base.

    With `shots` there is one arm more, FEW_SHOT: the base with some of them in its prompt.
    The base and its tokenizer are loaded once.
    """
    if not examples:
        raise DataError("There are no examples to evaluate on.")
    tokenizer = load_tokenizer(base_model)
    base = load_base(base_model, dtype=dtype, device=device)
    look_at_head(base)
    asked: dict[str, Sequence[EvalExample]] = dict.fromkeys(arms, examples)
    if shots:
        asked[FEW_SHOT] = with_shots(examples, shots)
    evaluations = {}
    for name, questions in asked.items():
        adapter = arms.get(name)
        model = base if adapter is None else attach_adapter(base, adapter, trainable=False)
        evaluations[name] = _evaluate_model(
            model,
            tokenizer,
            examples=questions,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
        )
        if isinstance(model, PeftModel):
            # PEFT changes the base's layers in place; this puts the plain ones back.
            base = model.unload()
    return evaluations


def _evaluate_model(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    *,
    examples: Sequence[EvalExample],
    max_new_tokens: int,
    batch_size: int,
) -> Evaluation:
    model.eval()
    prompts = [prompt_text(tokenizer, example.messages) for example in examples]
    started = time.perf_counter()
    generated = generate_greedy(
        model, tokenizer, prompts, max_new_tokens=max_new_tokens, batch_size=batch_size
    )
    seconds = time.perf_counter() - started
    losses = reference_losses(model, tokenizer, examples)
    answers = [
        judge(
            example,
            str(tokenizer.decode(written.ids, skip_special_tokens=True)),
            num_tokens=len(written.ids),
            seconds=written.seconds,
            reference_nats=loss.nats,
            reference_tokens=loss.num_tokens,
        )
        for example, written, loss in zip(examples, generated, losses, strict=True)
    ]
    return summarise(answers, seconds=seconds)
