"""Settings: how feedback becomes a score, whom it is believed, what people are asked to judge."""

from typing import Annotated

from pydantic import Field

from registry.settings_types import Count, Part, Positive, Share


class ScorerSettings(Part):
    """The quality scorer that is fitted on feedback."""

    enabled: bool = True
    """Off: the rule scores, and nothing is fitted."""
    min_ratings: Count = 200
    """Fewer ratings than this fit no scorer."""
    min_auc: Annotated[float, Field(ge=0.5, le=1)] = 0.7
    """Held-out AUC that a scorer must reach, less one standard error, before it may score."""
    min_held_out: Count = 15
    """Held-out ratings of each opinion that the AUC must rest on."""
    max_ratings: Count = 50_000
    """The newest so many are fitted on."""
    review_weight: Positive = 3
    """A reviewer's opinion counts as so many of a trusted user's."""
    drift_alert: Positive = 0.25
    """A feature whose population stability index is above this is reported as drifted."""


class TrustSettings(Part):
    """When feedback is believed less, or not at all before somebody has looked at it."""

    prior_honest: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """How likely it is, before anything is known of a rater, that the opinions are meant."""
    min_weight: Share = 0.2
    """Ratings of whoever is trusted less than this are held back."""
    min_ratings: Count = 8
    """Nobody is held back for disagreeing who has given fewer ratings than this."""
    burst_ratings: Count = 20
    """More pieces of feedback than this, by one person within `burst_seconds`, are a burst."""
    burst_seconds: Positive = 60
    copied_min: Annotated[int, Field(ge=2)] = 3
    """The same comment or correction on so many different requests is copy-pasted."""
    phrase_words: Annotated[int, Field(ge=1)] = 2
    """Length of the phrases that are watched, in words."""
    phrase_min: Annotated[int, Field(ge=2)] = 5
    """A phrase that people bring in so often, unasked, is looked at …"""
    phrase_max_raters: Share = 0.15
    """… and held back where no more than this share of those who rated a tool bring it in."""


class ReviewSettings(Part):
    """What reviewers are asked to judge."""

    batch: Count = 25
    """Unrated answers put into the queue each day, those that would teach the scorer most."""
    pool: Count = 5_000
    """They are chosen among the newest so many."""


class SignalSettings(Part):
    """What people say, and what becomes of it."""

    scorer: ScorerSettings = ScorerSettings()
    trust: TrustSettings = TrustSettings()
    review: ReviewSettings = ReviewSettings()
