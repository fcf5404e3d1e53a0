"""What is asked in an evaluation, and what comes out of one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np

from training.encoding import Example
from training.evaluation import metrics
from training.evaluation.intervals import interval


@dataclass(frozen=True, kw_only=True)
class EvalExample:
    """A conversation up to the answer, and the answer that would be right."""

    id: str
    messages: tuple[Mapping[str, Any], ...]
    """The prompt alone; the last turn is the user's."""
    reference: str
    target_tool: str | None = None
    language: str | None = None


def from_training(examples: Sequence[Example]) -> list[EvalExample]:
    """Held-out training examples as questions; their answers become the references."""
    return [
        EvalExample(
            id=example.id,
            messages=example.messages[:-1],
            reference=str(example.messages[-1]["content"]),
            target_tool=example.target_tool,
            language=example.language,
        )
        for example in examples
    ]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer and its verdict."""

    id: str
    target_tool: str
    """Empty where the example names none."""
    output: str
    right: bool
    coherent: bool
    sections_right: int
    sections_total: int
    """0 where the reference is not a structured prompt."""
    num_tokens: int
    language: str = ""
    """Empty where the example names none."""
    chrf: float = 0.0
    rouge: float = 0.0
    repetition: float = 0.0
    refusal: bool = False
    seconds: float = 0.0
    """What it took, as `generate.Written` has it."""
    reference_nats: float = 0.0
    """The loss of the reference, which has so many tokens:"""
    reference_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The metrics of `training.evaluation.metrics` over some answers; shares in [0, 1]."""

    num_samples: int
    accuracy: float
    section_accuracy: float | None
    """None where no reference is a structured prompt."""
    coherence: float
    diversity: float
    mean_tokens: float
    """Mean length of an answer in the model's own tokens."""
    accuracy_interval: tuple[float, float] = (0.0, 1.0)
    """95 % interval of `accuracy`; everything is possible where none was computed."""
    chrf: float = 0.0
    chrf_interval: tuple[float, float] = (0.0, 1.0)
    rouge: float = 0.0
    rouge_interval: tuple[float, float] = (0.0, 1.0)
    repetition: float = 0.0
    refusals: float = 0.0
    self_bleu: float | None = None
    """None of fewer than two answers."""
    perplexity: float | None = None
    """None where no reference was measured."""
    latency_p50_s: float = 0.0
    latency_p95_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What one version did with one set of examples."""

    overall: Scores
    by_tool: dict[str, Scores]
    """By target tool; only tools that occur."""
    by_language: dict[str, Scores]
    """By language; only languages that occur."""
    answers: tuple[Answer, ...]
    """In the examples' order."""
    seconds: float
    """Spent generating."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Evaluation:
        """Reads what `to_dict` wrote."""
        return cls(
            overall=_read(stored["overall"]),
            by_tool={tool: _read(scores) for tool, scores in stored["by_tool"].items()},
            by_language={
                language: _read(scores)
                for language, scores in stored.get("by_language", {}).items()
            },
            answers=tuple(Answer(**answer) for answer in stored["answers"]),
            seconds=stored["seconds"],
        )


def _read(stored: Mapping[str, Any]) -> Scores:
    values: dict[str, Any] = {
        name: tuple(value) if name.endswith("_interval") else value
        for name, value in stored.items()
    }
    return Scores(**values)


def judge(
    example: EvalExample,
    output: str,
    *,
    num_tokens: int,
    seconds: float = 0.0,
    reference_nats: float = 0.0,
    reference_tokens: int = 0,
) -> Answer:
    """The verdict on `output` as an answer to `example`; what was measured of it is kept."""
    reference, tool = example.reference, example.target_tool
    structured = metrics.is_structured(reference)
    right, total = metrics.sections_right(output, reference) if structured else (0, 0)
    return Answer(
        id=example.id,
        target_tool=tool or "",
        output=output,
        right=metrics.is_right(output, reference, target_tool=tool),
        coherent=metrics.is_coherent(output, reference, target_tool=tool),
        sections_right=right,
        sections_total=total,
        num_tokens=num_tokens,
        language=example.language or "",
        chrf=metrics.chrf(output, reference),
        rouge=metrics.rouge_l(output, reference),
        repetition=metrics.repetition(output),
        refusal=metrics.is_refusal(output),
        seconds=seconds,
        reference_nats=reference_nats,
        reference_tokens=reference_tokens,
    )


def summarise(answers: Sequence[Answer], *, seconds: float) -> Evaluation:
    """The scores of at least one answer, overall, by tool and by language."""
    languages = sorted({answer.language for answer in answers if answer.language})
    tools = sorted({answer.target_tool for answer in answers if answer.target_tool})
    return Evaluation(
        overall=_scores(answers),
        by_tool={
            tool: _scores([answer for answer in answers if answer.target_tool == tool])
            for tool in tools
        },
        by_language={
            language: _scores([answer for answer in answers if answer.language == language])
            for language in languages
        },
        answers=tuple(answers),
        seconds=seconds,
    )


def _scores(answers: Sequence[Answer]) -> Scores:
    num_sections = sum(answer.sections_total for answer in answers)
    num_right = sum(answer.sections_right for answer in answers)
    return Scores(
        num_samples=len(answers),
        accuracy=fmean(answer.right for answer in answers),
        section_accuracy=num_right / num_sections if num_sections else None,
        coherence=fmean(answer.coherent for answer in answers),
        diversity=metrics.diversity(answer.output for answer in answers),
        mean_tokens=fmean(answer.num_tokens for answer in answers),
        accuracy_interval=interval([float(answer.right) for answer in answers]),
        chrf=fmean(answer.chrf for answer in answers),
        chrf_interval=interval([answer.chrf for answer in answers]),
        rouge=fmean(answer.rouge for answer in answers),
        rouge_interval=interval([answer.rouge for answer in answers]),
        repetition=fmean(answer.repetition for answer in answers),
        refusals=fmean(answer.refusal for answer in answers),
        self_bleu=metrics.self_bleu([answer.output for answer in answers]),
        perplexity=_perplexity(answers),
        latency_p50_s=float(np.quantile([answer.seconds for answer in answers], 0.5)),
        latency_p95_s=float(np.quantile([answer.seconds for answer in answers], 0.95)),
    )


def _perplexity(answers: Sequence[Answer]) -> float | None:
    num_tokens = sum(answer.reference_tokens for answer in answers)
    if not num_tokens:
        return None
    return math.exp(sum(answer.reference_nats for answer in answers) / num_tokens)
