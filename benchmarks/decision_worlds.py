"""The worlds in which experiments are simulated: who asks, how often, and what they think.

Times are hours. Rates are shares in [0, 1]. `lift` is relative: 0.1 makes quality and the
positive rate 10 % higher under the challenger.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class World:
    """One world; the defaults are a team's assistant with 500 requests a day, all rated."""

    name: str
    per_day: float = 500
    days: int = 14
    num_users: int = 400
    newcomers: float = 0.2
    """Share of users of whom nothing is known from before."""
    heaviness: float = 0.0
    """Exponent of Zipf's law over users: 0 is equal use, 1 is a few who ask all day."""
    rhythm: float = 0.7
    """How deep the night and the weekend are."""
    rating_rate: float = 1.0
    rating_delay: float = 0.0
    """Mean hours until a rating arrives (exponential)."""
    grumpiness: float = 0.0
    """By how much more often displeased people rate: 1 is twice as often."""
    quality: float = 0.7
    quality_sd: float = 0.12
    positive: float = 0.6
    user_spread: float = 0.5
    """Standard deviation of people's taste, in logits."""
    lift: float = 0.0
    novelty: float = 0.0
    """Extra lift at the start, which fades with a time constant of a day."""
    drift: float = 0.0
    """By how much the positive rate of both arms has changed after a week."""
    error_rate: float = 0.01
    outage: float = 0.0
    """Errors added in both arms during the hours 60 to 70."""
    latency_sigma: float = 0.5
    """Spread of the logarithm of an answer's time."""
    load: float = 0.2
    """How much slower both arms are at noon."""
    latency_spread: float = 0.2
    """How much people differ in what they ask for, in logs."""
    faulty_users: float = 0.0
    """Share of users half of whose requests fail, whoever answers."""
    latency_factor: float = 1.0
    extra_errors: float = 0.0
    breaks_at: float = 0.0
    """From when on the two above hold."""
    broken_lift: float = 0.0
    """Lift from then on, in place of `lift`."""

    @property
    def is_better(self) -> bool:
        """Whether the challenger is truly better in the long run."""
        return self.lift > 0 and self.breaks_at == 0

    @property
    def is_bad(self) -> bool:
        """Whether a guardrail ought to stop the challenger."""
        return self.latency_factor > 1 or self.extra_errors > 0 or self.broken_lift < 0


SAME = World("no difference")
SAME_WORLDS = (
    SAME,
    replace(SAME, name="no difference, 20% rated, 12 h late", rating_rate=0.2, rating_delay=12),
    replace(SAME, name="no difference, 5% rated", rating_rate=0.05),
    replace(SAME, name="no difference, heavy users", heaviness=1.0, user_spread=1.0),
    replace(SAME, name="no difference, 60 heavy users", heaviness=1.0, num_users=60),
    replace(SAME, name="no difference, 2000 a day", per_day=2000, num_users=1500),
    replace(SAME, name="no difference, both improve", drift=0.25),
    replace(SAME, name="no difference, both get worse", drift=-0.25),
    replace(SAME, name="no difference, the displeased rate", rating_rate=0.3, grumpiness=1.0),
    replace(SAME, name="no difference, outage, long tails", outage=0.3, latency_sigma=1.0),
    replace(SAME, name="no difference, novelty of 10% fades", novelty=0.1),
    replace(
        SAME,
        name="no difference, some people's fail",
        heaviness=0.7,
        num_users=60,
        faulty_users=0.05,
    ),
    replace(
        SAME,
        name="no difference, some people's are slow",
        heaviness=0.7,
        num_users=60,
        latency_spread=0.6,
    ),
)
BETTER_WORLDS = (
    replace(SAME, name="10% better", lift=0.1),
    replace(
        SAME, name="10% better, 20% rated, 12 h late", lift=0.1, rating_rate=0.2, rating_delay=12
    ),
    replace(SAME, name="10% better, 5% rated", lift=0.1, rating_rate=0.05),
    replace(SAME, name="10% better, heavy users", lift=0.1, heaviness=1.0, user_spread=1.0),
    replace(SAME, name="10% better, both drift", lift=0.1, drift=-0.25),
)
BAD_WORLDS = (
    replace(SAME, name="twice the latency", latency_factor=2.0),
    replace(SAME, name="twice the latency, long tails", latency_factor=2.0, latency_sigma=1.0),
    replace(SAME, name="20 points more errors", extra_errors=0.2),
    replace(SAME, name="better, breaks after a day", lift=0.1, extra_errors=0.2, breaks_at=24),
    replace(SAME, name="20% worse", broken_lift=-0.2),
)
