"""A language model as judge: marks from 1 to 5 for answers, from an OpenAI-compatible server.

One answer at a time beside its reference, as in Zheng et al. 2023 (arXiv:2306.05685), section
3.1 (single answer grading, reference-guided), which avoids the bias for the answer that is
shown first. What the server does not judge in time or in form is counted, and left out.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import fmean
from threading import Event
from typing import Any

import httpx

from training.evaluation.intervals import interval
from training.evaluation.suite import Answer, EvalExample

logger = logging.getLogger(__name__)

MAX_FAILURES = 5
"""So many answers in a row that cannot be judged end it: the server is not there."""
INSTRUCTIONS = (
    "You judge answers of an assistant. You are given a request, a reference answer that is "
    "known to be good, and the assistant's answer. Give a mark from 1 (useless or wrong) to 5 "
    "(as good as the reference or better) for how well the answer serves the request. "
    'Write the mark first, in the form "[[mark]]", and nothing else.'
)
_MARK = re.compile(r"\[\[\s*([1-5])\s*\]\]|^\s*([1-5])\s*$")


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Where the judge is and how it is asked; `registry.settings_training` describes each."""

    url: str
    model: str
    api_key: str | None = None
    timeout_s: float = 60.0
    concurrency: int = 4
    max_answers: int = 200


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a judge thinks of one version's answers; marks are scaled to [0, 1]."""

    mean: float | None
    """None where nothing was judged."""
    interval: tuple[float, float] | None
    """95 % interval of the mean."""
    num_judged: int
    num_failed: int
    """Asked, and not judged: no answer, too late, or no mark in it."""


def judge_answers(
    judge: Judge, examples: Sequence[EvalExample], answers: Sequence[Answer]
) -> Judged:
    """Has up to `judge.max_answers` of `answers`, which are those to `examples`, judged.

    An unreachable judge raises nothing: an evaluation is worth something without it.
    """
    pairs = list(zip(examples, answers, strict=True))
    step = max(1, -(-len(pairs) // judge.max_answers))
    headers = {"Authorization": f"Bearer {judge.api_key}"} if judge.api_key else {}
    with (
        httpx.Client(headers=headers, timeout=judge.timeout_s) as client,
        ThreadPoolExecutor(judge.concurrency) as threads,
    ):
        asker = _Asker(client, judge)
        found = list(threads.map(asker.ask, pairs[::step]))
    marks = [mark for mark in found if mark is not None]
    num_failed = len(found) - len(marks)
    if num_failed:
        logger.warning(
            "the judge at %s left %d answers unjudged; the last: %s",
            judge.url,
            num_failed,
            asker.last_fault,
        )
    return Judged(
        mean=fmean(marks) if marks else None,
        interval=interval(marks) if marks else None,
        num_judged=len(marks),
        num_failed=num_failed,
    )


class _Asker:
    """Asks for one mark at a time, until the server has failed too often in a row."""

    def __init__(self, client: httpx.Client, judge: Judge) -> None:
        self._client = client
        self._judge = judge
        self._gone = Event()
        self._in_a_row = 0
        self.last_fault = ""

    def ask(self, pair: tuple[EvalExample, Answer]) -> float | None:
        """The mark in [0, 1]; None where there is none."""
        if self._gone.is_set():
            return None
        try:
            mark = read_mark(self._said(*pair))
        except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
            self._in_a_row += 1
            self.last_fault = str(error) or type(error).__name__
            if self._in_a_row >= MAX_FAILURES:
                self._gone.set()
            return None
        self._in_a_row = 0
        return (mark - 1) / 4

    def _said(self, example: EvalExample, answer: Answer) -> str:
        response = self._client.post(
            f"{self._judge.url.rstrip('/')}/chat/completions",
            json={
                "model": self._judge.model,
                "temperature": 0,
                "max_tokens": 16,
                "messages": [
                    {"role": "system", "content": INSTRUCTIONS},
                    {"role": "user", "content": _question(example, answer)},
                ],
            },
        )
        response.raise_for_status()
        document: Any = response.json()
        return str(document["choices"][0]["message"]["content"])


def read_mark(said: str) -> int:
    """The mark from 1 to 5 in what a judge has written; ValueError where there is none."""
    found = _MARK.search(said)
    if found is None:
        raise ValueError(f"no mark in {said[:80]!r}")
    return int(found.group(1) or found.group(2))


def _question(example: EvalExample, answer: Answer) -> str:
    request = "\n".join(f"{turn['role']}: {turn['content']}" for turn in example.messages)
    return (
        f"[Request]\n{request}\n\n[Reference answer]\n{example.reference}\n\n"
        f"[The assistant's answer]\n{answer.output}\n\n[End of the assistant's answer]"
    )
