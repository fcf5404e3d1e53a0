"""Simulated people: they ask, read what they get, and say what they think of it.

Their taste is the rubric of `training.base_model.rubric`, applied to the text they receive;
nothing tells them which version answered. They are fickle: one rating in ten is the
opposite of what they think. Most of them rate, half by score and half by thumb, and some
of those who are disappointed write what they had wanted.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import httpx

from training.base_model.requests import Request, ideal, sample_request
from training.base_model.rubric import Verdict, judge

Item = TypeVar("Item")

NUM_PEOPLE = 500
RATING_NOISE = 0.10
RATING_RATE = 0.90
CONCURRENCY = 32
TIMEOUT_S = 90.0
"""Longer than the endpoint takes to give up, so that its own reason is seen."""


@dataclass(frozen=True)
class Answer:
    """One answer with the verdict of the person who asked, before any noise."""

    request: Request
    output: str
    version: str
    verdict: Verdict


class People:
    """A crowd with its own randomness, talking HTTP to the endpoint."""

    def __init__(self, url: str, *, seed: int, correction_rate: float) -> None:
        """`correction_rate`: share of disappointed raters who write a correction."""
        self._url = url
        self._rng = random.Random(f"people-{seed}")
        self._correction_rate = correction_rate

    def use(self, num_requests: int, *, on_answer: Callable[[], None]) -> list[Answer]:
        """Ask `num_requests` times and rate what comes back. Raises `httpx.HTTPError`."""
        asks = [
            (self._rng.randrange(NUM_PEOPLE), sample_request(self._rng), self._rng.random())
            for _ in range(num_requests)
        ]

        async def one(client: httpx.AsyncClient, ask: tuple[int, Request, float]) -> Answer:
            person, request, luck = ask
            answer, interaction_id = await _ask(client, request, user_id=f"user-{person}")
            feedback = self._opinion(answer, person=person, rng=random.Random(luck))
            if feedback is not None:
                body = {"interaction_id": interaction_id, **feedback}
                (await client.post("/api/feedback", json=body)).raise_for_status()
            on_answer()
            return answer

        return asyncio.run(_each(self._url, asks, one))

    def _opinion(
        self, answer: Answer, *, person: int, rng: random.Random
    ) -> dict[str, str | int] | None:
        if rng.random() >= RATING_RATE:
            return None
        pleased = answer.verdict.good != (rng.random() < RATING_NOISE)
        opinion: dict[str, str | int] = (
            {"score": 5 if pleased else min(answer.verdict.score, 2)}
            if person % 2
            else {"thumb": 1 if pleased else -1}
        )
        if not pleased and not answer.verdict.good and rng.random() < self._correction_rate:
            opinion["corrected_output"] = ideal(answer.request)
        return opinion


def held_out_requests(seed: int, num: int) -> list[Request]:
    """Requests that no person of the demo makes, in words that no training saw."""
    rng = random.Random(f"held-out-{seed}")
    return [sample_request(rng) for _ in range(num)]


def examine(
    url: str,
    requests: Sequence[Request],
    *,
    version: str | None,
    on_answer: Callable[[], None] = lambda: None,
) -> list[Answer]:
    """Put `requests` to one version (None: whoever serves), greedily and unrated.

    A request that names its version is never diverted, and never counted.
    """

    async def one(client: httpx.AsyncClient, request: Request) -> Answer:
        answer, _ = await _ask(client, request, model_version=version, temperature=0)
        on_answer()
        return answer

    return asyncio.run(_each(url, requests, one))


async def _ask(
    client: httpx.AsyncClient, request: Request, **extra: str | float | None
) -> tuple[Answer, str]:
    body = {
        "text": request.text,
        "target_tool": request.target_tool,
        "language": request.language,
        **{name: value for name, value in extra.items() if value is not None},
    }
    response = await client.post("/api/generate", json=body)
    response.raise_for_status()
    document = response.json()
    output = document["model_output"]
    answer = Answer(request, output, document["model_version"], judge(request, output))
    return answer, document["interaction_id"]


async def _each(
    url: str,
    items: Sequence[Item],
    one: Callable[[httpx.AsyncClient, Item], Awaitable[Answer]],
) -> list[Answer]:
    """Handle all items, at most `CONCURRENCY` at a time; answers in the items' order."""
    gate = asyncio.Semaphore(CONCURRENCY)
    limits = httpx.Limits(max_connections=CONCURRENCY)

    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, limits=limits) as client:

        async def guarded(item: Item) -> Answer:
            async with gate:
                return await one(client, item)

        return await asyncio.gather(*(guarded(item) for item in items))
