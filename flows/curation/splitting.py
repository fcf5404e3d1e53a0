"""Train, validation or test: decided once for each sample, and never changed.

All samples of a user stand on one side, told by a hash of the user, so that a model is judged by
people it has not learned from; where there are few users, a hash of the request tells. Requests
that are equal or nearly so stand on one side: that of the oldest sample among them, else that of
the first of them. Who cannot stand there, because their user or another sample they are alike to
stands elsewhere, is left out and counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import polars as pl

from flows.curation.frames import Outcome
from flows.curation.kin import Sample
from registry.settings_curation import CurationSettings

SIDES = ("train", "validation", "test")
OF_FILE = "rehearsal-"
"""How the ids of records from the rehearsal file begin, which are on no side of their own."""
TORN = "alike to samples on two sides"
ELSEWHERE = "user on another side than the request"


def with_split(
    frame: pl.DataFrame,
    settings: CurationSettings,
    *,
    components: npt.NDArray[np.int64],
    kin: Iterable[tuple[int, Sample]] = (),
) -> Outcome:
    """Add `split` and `cluster_id`; rows go that cannot stand on the side of their request.

    `components`: (rows,) which requests are alike. `kin`: rows with the earlier samples that
    they are alike to.
    """
    by_user = frame["user_id"].drop_nulls().n_unique() >= settings.split_by_user_from
    group = pl.coalesce("user_id", "request_hash") if by_user else pl.col("request_hash")
    names = frame.select(group).to_series()
    sides = {name: side_of(name, settings) for name in names.unique()}
    elders, met = _elders(components, kin)
    frame = (
        frame.with_columns(
            component=pl.Series(components, dtype=pl.Int64),
            own=names.replace_strict(sides, return_dtype=pl.String) if sides else names,
        )
        .with_row_index("row")
        .join(elders, on="component", how="left", maintain_order="left")
        .join(met, on="row", how="left", maintain_order="left")
        .with_columns(
            split=pl.coalesce("elder_side", pl.col("own").first().over("component")),
            cluster_id=pl.coalesce(
                "elder_cluster", pl.col("request_hash").first().over("component")
            ),
        )
    )
    torn = pl.col("met").list.set_difference(pl.concat_list("split")).list.len().fill_null(0) > 0
    away = pl.lit(by_user) & pl.col("user_id").is_not_null() & (pl.col("own") != pl.col("split"))
    frame = frame.with_columns(torn=torn, away=away & ~torn)
    notes = {TORN: int(frame["torn"].sum()), ELSEWHERE: int(frame["away"].sum())}
    kept = frame.filter(~pl.col("torn"), ~pl.col("away"))
    helpers = ("row", "component", "own", "elder_side", "elder_cluster", "met", "torn", "away")
    return Outcome(kept.drop(helpers), notes)


def _elders(
    components: npt.NDArray[np.int64], kin: Iterable[tuple[int, Sample]]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Of components the oldest sample that each is alike to; of rows the sides they meet."""
    oldest: dict[int, Sample] = {}
    met: dict[int, list[str]] = {}
    for row, sample in kin:
        component = int(components[row])
        if component not in oldest or sample.age < oldest[component].age:
            oldest[component] = sample
        sides = met.setdefault(row, [])
        if sample.side not in sides:
            sides.append(sample.side)
    elders = [(place, sample.side, sample.cluster_id) for place, sample in oldest.items()]
    return (
        pl.DataFrame(
            elders,
            {"component": pl.Int64, "elder_side": pl.String, "elder_cluster": pl.String},
            orient="row",
        ),
        pl.DataFrame(
            list(met.items()), {"row": pl.UInt32, "met": pl.List(pl.String)}, orient="row"
        ),
    )


def side_of(name: str, settings: CurationSettings) -> str:
    """The side of a user or a request: equal names, equal sides."""
    place = unit_interval(name)
    if place < settings.validation_share:
        return "validation"
    return "test" if place < settings.validation_share + settings.test_share else "train"


def unit_interval(name: str) -> float:
    """A number in [0, 1) that hangs on `name` alone."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:13], 16) / 16**13
