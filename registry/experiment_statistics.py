"""What an experiment's answers come to: sums by user, share periods, answers in their order.

Everything is as of a moment: answers given and ratings received by then. Shadow answers count
in the shadow phase alone. Who left before the answer was done says nothing of a version: such a
row belongs to no experiment (see `serving.answering`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

import polars as pl
from sqlmodel import Session, col, select

from registry.models import Experiment, ProductionPeriod
from registry.reading import MOMENT

Stage = Literal["shadow", "trial", "holdback"]

USER_SUMS = pl.Schema(
    {
        "unit": pl.UInt64(),
        "period": pl.Int32(),
        "arm": pl.Int32(),
        "scored": pl.Int64(),
        "quality": pl.Float64(),
        "rated": pl.Int64(),
        "positive": pl.Int64(),
        "negative": pl.Int64(),
        "rated_scored": pl.Int64(),
        "rated_quality": pl.Float64(),
    }
)
"""One user's answers in one period and arm (0 control, 1 treatment); failed ones are in no sum.

`unit`: see `trial_rows.ROWS`.
"""

ANSWERS = pl.Schema(
    {
        "is_treatment": pl.Boolean(),
        "failed": pl.Boolean(),
        "latency_ms": pl.Float64(),
        "created_at": MOMENT,
        "unit": pl.UInt64(),
    }
)
"""One answer that counts: whether the treatment gave it, whether it failed, how long it took, and
who got it."""


@dataclass(frozen=True)
class SharePeriod:
    """A time with one share for the treatment; `until` is null for the one that runs."""

    since: datetime
    until: datetime | None
    share: float
    """Of all challengers together."""
    num_challengers: int = 1

    @property
    def challenger_share(self) -> float:
        """Of one challenger, among its people and the champion's."""
        own = self.share / self.num_challengers
        return own / (own + 1 - self.share)


def share_periods(
    session: Session, experiment: Experiment, *, until: datetime
) -> list[SharePeriod]:
    """The experiment's periods of one share, in the order of their changes.

    A clock that stepped back makes a period of no length, never one that ends before it began.
    """
    rows = session.exec(
        select(ProductionPeriod)
        .where(
            ProductionPeriod.workload == experiment.workload,
            ProductionPeriod.experiment_id == experiment.id,
            ProductionPeriod.from_at <= until,
            # What its end opened is behind it.
            col(ProductionPeriod.from_at).is_distinct_from(experiment.ended_at),
        )
        .order_by(col(ProductionPeriod.generation))
    ).all()
    found: list[SharePeriod] = []
    for row in rows:
        num = 1 + len(row.rivals or ())
        if found and (found[-1].share, found[-1].num_challengers) == (row.share, num):
            continue
        since = max(row.from_at, found[-1].since) if found else experiment.started_at
        if found:
            found[-1] = replace(found[-1], until=since)
        found.append(SharePeriod(since, None, row.share, num))
    return found or [SharePeriod(experiment.started_at, None, experiment.share)]


def settled(periods: Sequence[SharePeriod], since: datetime) -> list[SharePeriod]:
    """What is left of the periods from `since` on."""
    left = [period for period in periods if period.until is None or period.until > since]
    return [replace(period, since=max(period.since, since)) for period in left]


def counted(
    rows: pl.DataFrame,
    *,
    stage: Stage,
    since: datetime,
    until: datetime,
    version: str | None = None,
) -> pl.DataFrame:
    """Those of the `trial_rows.ROWS` in [since, until] that count, with `is_treatment`.

    `version`: the challenger that is compared, where there are several.
    """
    conditions = [pl.col("created_at").is_between(since, until)]
    if stage != "shadow":
        conditions.append(pl.col("role") != "shadow")
    if version is not None:
        is_another = pl.col("version").ne_missing(version)
        conditions.append(~(pl.col("role").is_in(["challenger", "shadow"]) & is_another))
    return rows.filter(conditions).with_columns(is_treatment=_is_treatment(stage))


def user_sums(
    found: pl.DataFrame,
    *,
    periods: Sequence[SharePeriod],
    until: datetime,
    max_per_user_day: int,
) -> pl.DataFrame:
    """The sums of every user, period and arm, of answers since the first period.

    `found`: what counts, in the order it was given; ratings count that came up to `until`.
    The sums: as `USER_SUMS`, in the order of its first columns.
    Of a user's answers in one day (UTC) the first `max_per_user_day` count, and as many of those
    that are rated.
    """
    is_rated = pl.col("thumb").is_not_null() & (pl.col("feedback_at") <= until)
    has_score = pl.col("quality").is_not_null()
    scored, rated = pl.col("scored"), pl.col("rated")
    answered = ~pl.col("failed") & (pl.col("created_at") >= periods[0].since)
    grouped = (
        found.filter(answered)
        .select("unit", "is_treatment", "created_at", "feedback_at", "thumb", "quality")
        .sort("unit", maintain_order=True)
        .with_columns(
            arm=pl.col("is_treatment").cast(pl.Int32),
            period=_period(periods),
            is_rated=is_rated.fill_null(value=False),
            begins_day=_differs("unit") | _differs(pl.col("created_at").dt.date()),
        )
        .with_columns(
            scored=has_score & (_before(pl.int_range(pl.len())) < max_per_user_day),
            rated=pl.col("is_rated")
            & (_before(pl.col("is_rated").cum_sum() - pl.col("is_rated")) < max_per_user_day),
        )
        .group_by("unit", "period", "arm")
        .agg(
            scored.sum(),
            pl.col("quality").filter(scored).sum(),
            rated.sum(),
            positive=(rated & (pl.col("thumb") == 1)).sum(),
            negative=(rated & (pl.col("thumb") == -1)).sum(),
            rated_scored=(rated & has_score).sum(),
            rated_quality=pl.col("quality").filter(rated).sum(),
        )
    )
    return grouped.cast(USER_SUMS).select(USER_SUMS.names()).sort("unit", "period", "arm")


def _differs(value: str | pl.Expr) -> pl.Expr:
    """From the row above."""
    each = pl.col(value) if isinstance(value, str) else value
    return each.ne_missing(each.shift())


def _before(above: pl.Expr) -> pl.Expr:
    """How much of `above`, which counts from the first row, is of the same user's day.

    A day's answers lie together. The same by `over` takes twenty times as long.
    """
    return above - pl.when("begins_day").then(above).forward_fill()


def _is_treatment(stage: Stage) -> pl.Expr:
    """After a promotion the new champion is the treatment, and whoever holds back the control."""
    role = {"shadow": "shadow", "trial": "challenger", "holdback": "champion"}[stage]
    return pl.col("role") == role


def _period(periods: Sequence[SharePeriod]) -> pl.Expr:
    """The last period that had begun when the answer was given."""
    begun = [(pl.col("created_at") >= period.since).cast(pl.Int32) for period in periods[1:]]
    return pl.sum_horizontal(pl.lit(0, dtype=pl.Int32), *begun)
