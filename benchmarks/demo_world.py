"""The demo's people without its servers: requests, answers of the base policy, ratings.

The rubric is what people want; their ratings are fickle as in `flows.demo.people`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from flows.context import Context
from flows.demo.people import NUM_PEOPLE, RATING_NOISE
from registry import interactions, prompts, quality
from registry.features import Sample
from registry.interactions import Feedback, Interaction
from training.base_model.policy import mediocre
from training.base_model.requests import Request, ideal, sample_request
from training.base_model.rubric import judge

START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Rated:
    """One request, what was answered, and what the person who asked said of it."""

    id: str
    request: Request
    output: str
    user: str
    at: datetime
    is_good: bool
    """What the rubric says: nobody is told."""
    liked: bool
    """What the person says."""
    correction: str | None = None

    @property
    def sample(self) -> Sample:
        """As a scorer sees it."""
        return Sample(
            self.request.text, self.output, self.request.target_tool, self.request.language
        )

    @property
    def rule_score(self) -> float:
        """What the rule says."""
        return quality.score(self.output, target_tool=self.request.target_tool)

    def interaction(self, at: datetime) -> Interaction:
        """As the router logs it at that time."""
        tool = self.request.target_tool
        return Interaction(
            id=self.id,
            created_at=at,
            input_text=self.request.text,
            structured_prompt=prompts.normalise(self.output, target_tool=tool),
            model_output=self.output,
            external_user_id=self.user,
            target_tool=tool,
            language=self.request.language,
            quality_score=self.rule_score,
            scorer_version="rule-1",
        )


def use(num: int, *, seed: int, correction_rate: float = 0.15) -> list[Rated]:
    """People ask `num` times, a minute apart, are answered by the base policy, and rate."""
    rng = random.Random(f"demo-world-{seed}")
    found = []
    for number in range(num):
        request = sample_request(rng)
        output = mediocre(request, rng)
        is_good = judge(request, output).good
        liked = is_good != (rng.random() < RATING_NOISE)
        corrects = not liked and not is_good and rng.random() < correction_rate
        found.append(
            Rated(
                id=f"{seed}-{number}",
                request=request,
                output=output,
                user=f"user-{rng.randrange(NUM_PEOPLE)}",
                at=START + timedelta(minutes=number),
                is_good=is_good,
                liked=liked,
                correction=ideal(request) if corrects else None,
            )
        )
    return found


def samples(rated: Sequence[Rated]) -> list[Sample]:
    """All of them, as a scorer sees them."""
    return [one.sample for one in rated]


def log(context: Context, rated: Sequence[Rated]) -> None:
    """Into the registry, as serving does it."""
    rows = [one.interaction(one.at) for one in rated]
    with context.database.write() as session:
        interactions.log(session, rows, keyring=context.keyring)
        for one in rated:
            feedback = Feedback(
                interaction_id=one.id,
                score=5 if one.liked else 2,
                corrected_output=one.correction,
                given_at=one.at + timedelta(seconds=30),
            )
            interactions.add_feedback(
                session, feedback, now=one.at + timedelta(seconds=30), new_id=context.new_id
            )
