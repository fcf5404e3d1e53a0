"""Measures a base model: slots copied, free-typed requests understood, answers rated good."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from registry import prompts
from training.base_model.requests import Request
from training.base_model.rubric import Verdict, judge, reader

FREE_REQUESTS = Path(__file__).with_name("free_requests.jsonl")
_EDGES = " .,;:!?؟\"'"


@dataclass(frozen=True)
class FreeRequest:
    """A request that a person typed, and what counts as understood."""

    text: str
    target_tool: str
    language: str
    task: tuple[str, ...]
    """Accepted texts of Task."""
    audience: tuple[str, ...]
    """Accepted readers in Context."""


def free_requests() -> tuple[FreeRequest, ...]:
    """The file of free-typed requests, written before the grammar was tuned."""
    rows = map(json.loads, FREE_REQUESTS.read_text("utf-8").splitlines())
    return tuple(
        FreeRequest(**{**row, "task": tuple(row["task"]), "audience": tuple(row["audience"])})
        for row in rows
    )


def understood(request: FreeRequest, output: str) -> bool:
    """Whether task and audience are right, but for case and punctuation at the ends."""
    sections = prompts.parse(output)
    tasks = {_plain(task) for task in request.task}
    readers = {_plain(audience) for audience in request.audience}
    return _plain(sections.get("Task", "")) in tasks and _plain(reader(sections)) in readers


@torch.inference_mode()
def answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[Request | FreeRequest],
    *,
    temperature: float = 0.0,
    seed: int = 0,
    batch: int = 64,
    max_new_tokens: int = 160,
) -> list[str]:
    """One answer per request; greedy at temperature 0, else sampled from `seed`."""
    torch.manual_seed(seed)
    model.eval()  # type: ignore[no-untyped-call]
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    texts: list[str] = []
    for start in range(0, len(requests), batch):
        asked = [
            prompts.messages(
                request.text, target_tool=request.target_tool, language=request.language
            )
            for request in requests[start : start + batch]
        ]
        inputs: Any = tokenizer.apply_chat_template(
            asked, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        written = model.generate(  # type: ignore[operator]
            **inputs,
            max_new_tokens=max_new_tokens,
            **(sampling if temperature else {"do_sample": False}),
        )
        width = inputs["input_ids"].shape[1]
        texts += tokenizer.batch_decode(written[:, width:], skip_special_tokens=True)
    return texts


def verdicts(requests: Sequence[Request], outputs: Iterable[str]) -> list[Verdict]:
    """The rubric's verdict on each answer."""
    return [judge(request, output) for request, output in zip(requests, outputs, strict=True)]


def slots_right(judged: Iterable[Verdict]) -> float:
    """Share of the typed slots that came back exactly."""
    counted = [(verdict.slots_right, verdict.slots_total) for verdict in judged]
    return sum(right for right, _ in counted) / max(1, sum(total for _, total in counted))


def rated_good(judged: Sequence[Verdict]) -> float:
    """Share of answers that the rubric calls good."""
    return sum(verdict.good for verdict in judged) / max(1, len(judged))


def evaluation_rng(seed: int, name: str) -> random.Random:
    """The randomness of one evaluation set; never that of training, whose seeds are numbers."""
    return random.Random(f"evaluation {name} {seed}")


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).strip(_EDGES)
