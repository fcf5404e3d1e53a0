"""Settings of what decides: when to retrain, and how a challenger is tried."""

from typing import Annotated

from pydantic import Field, model_validator

from registry.settings_types import Count, Part, Positive, Share

Level = Annotated[float, Field(gt=0, lt=1)]


class Step(Part):
    """One step of a rollout, and what it takes to go on to the next."""

    share: Share
    """The challenger's share of traffic; 0 is the shadow phase: it answers copies, unseen."""
    min_hours: Annotated[float, Field(ge=0)] = 0
    """Hours in this step."""
    min_answers: Annotated[int, Field(ge=0)] = 0
    """Answers of the challenger in this step; in the shadow phase, shadow answers."""
    min_rated: Annotated[int, Field(ge=0)] = 0
    """Rated answers of the challenger in this step."""


class TriggerSettings(Part):
    """When to retrain; checked in this order, after the cooldown."""

    cooldown_hours: Annotated[float, Field(ge=0)] = 24
    min_new_samples: Count = 1000
    schedule_interval_hours: Positive = 168
    quality_drop: Share = 0.10
    """Relative fall of mean quality between two windows."""
    quality_drop_errors: Annotated[float, Field(ge=0)] = 4
    """Standard errors (over users) that the fall must exceed too, so that chance is none."""
    error_rate: Share = 0.20
    window_hours: Positive = 24
    min_window_samples: Count = 50
    """Fewer interactions than this in a window say nothing about quality or errors."""
    check_interval_seconds: Positive = 3600
    reference_days: Annotated[int, Field(ge=7)] = 14
    """Whole days after a training that later ones are held against."""
    change_tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.02
    """Relative fall of quality that is no change."""
    change_days: Positive = 180
    """The change detector raises a false alarm once in so many days, at most, on average."""
    drift_days: Count = 7
    """Days of prompts that are compared with those of the reference days."""
    drift_psi: Positive = 0.2
    """Population stability index of prompts above which their mixture has shifted."""
    min_drift_samples: Count = 300
    """Fewer prompts than this on either side say nothing about drift."""


class ExperimentSettings(Part):
    """How a challenger is tried, and what it takes to win."""

    enabled: bool = True
    """Off: a version that passes the gate becomes champion at once."""
    shares: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (0.1, 0.25, 0.5)
    """The challenger's share of traffic, step by step."""
    max_challengers: Annotated[int, Field(ge=1, le=5)] = 1
    """Versions that are put on trial at once, where several wait."""
    ramp_min_rated: Count = 30
    """Rated answers of the challenger in each step before its share may grow."""
    plan: tuple[Step, ...] = ()
    """The steps with conditions of their own, in place of `shares` and `ramp_min_rated`. The
    first may be a shadow phase: share 0, with `min_answers`."""
    min_hours: Annotated[float, Field(ge=0)] = 48
    max_hours: Positive = 336
    settle_hours: Annotated[float, Field(ge=0)] = 24
    """What was answered in the first hours no longer counts in the comparison once they are
    over: what is new pleases, or puzzles, for a while. Guardrails count from the start."""
    min_rated: Count = 100
    """Rated answers that each arm needs."""
    min_users: Annotated[int, Field(ge=2)] = 15
    """People with a rating that each arm needs, a few who ask all day counting as few."""
    max_per_user_day: Count = 5
    """Answers, and ratings, of one person in a day that are compared: the rest tells little
    more, and would let a few decide for all. Guardrails count every answer."""
    prior_days: Annotated[int, Field(ge=0)] = 28
    """Days before the trial whose ratings tell who is easily pleased, so that the luck of who got
    into which arm is taken out of the comparison; 0: none."""
    min_improvement: Annotated[float, Field(ge=0)] = 0.05
    """Least relative improvement of the overall score."""
    alpha: Level = 0.015
    """Error rate of the confidence sequence over the whole experiment, both sides together."""
    guardrail_alpha: Level = 0.01
    """Chance that one guardrail stops an equal challenger, over the whole experiment."""
    latency_tolerance: Annotated[float, Field(ge=1)] = 1.25
    """The challenger is slow beyond the champion's latency times this."""
    guardrail_min_reference: Count = 19
    """Answers among which each one's latency is ranked, all of the same time."""
    guardrail_min_rated: Count = 30
    """Rated answers that each arm needs before negative feedback is judged."""
    negative_tolerance: Share = 0.02
    """Points of negative feedback that the challenger may have more."""
    split_alpha: Level = 0.001
    """Chance that a fair split of people is taken for a broken one."""
    holdback_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of people who keep the previous champion after a promotion; 0: nobody."""
    holdback_hours: Positive = 72
    """How long they do; the promotion is undone if they turn out to be better off."""
    retry_hours: Annotated[float, Field(ge=0)] = 24
    """After a rollback, the time before the next challenger is tried."""

    @property
    def steps(self) -> tuple[Step, ...]:
        """The plan, or the one that `shares` and `ramp_min_rated` make."""
        if self.plan:
            return self.plan
        return tuple(Step(share=share, min_rated=self.ramp_min_rated) for share in self.shares)

    @model_validator(mode="after")
    def _shares_grow(self) -> "ExperimentSettings":
        for name, shares in (
            ("shares", list(self.shares)),
            ("plan", [step.share for step in self.plan]),
        ):
            if shares != sorted(set(shares)) or (name == "shares" and not shares):
                raise ValueError(f"{name} {shares} must grow from step to step")
        if self.plan and self.plan[-1].share == 0:
            raise ValueError("plan needs a step with a share after the shadow phase")
        if self.max_hours <= self.min_hours:
            raise ValueError(f"max_hours {self.max_hours} must exceed min_hours {self.min_hours}")
        return self
