"""Train, validation or test: decided once for each sample, and never changed.

All samples of a user stand on one side, told by a hash of the user, so that a model is judged by
people it has not learned from; where there are few users, a hash of the request tells. Requests
that are equal or nearly so stand on one side: that of the oldest sample among them, else that of
the first of them. Who cannot stand there, because their user or another sample they are alike to
stands elsewhere, is left out and counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from flows.curation.frames import Outcome
from flows.curation.neardup import Sample
from registry.settings_curation import CurationSettings

SIDES = ("train", "validation", "test")
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
    eldest, met = _elders(frame.height, components, kin)
    frame = frame.with_columns(
        component=pl.Series(components, dtype=pl.Int64),
        own=pl.Series([sides[name] for name in names], dtype=pl.String),
        elder_side=pl.Series([old and old.side for old in eldest], dtype=pl.String),
        elder_cluster=pl.Series([old and old.cluster_id for old in eldest], dtype=pl.String),
        met=pl.Series(met, dtype=pl.List(pl.String)),
    ).with_columns(
        split=pl.coalesce("elder_side", pl.col("own").first().over("component")),
        cluster_id=pl.coalesce("elder_cluster", pl.col("request_hash").first().over("component")),
    )
    torn = pl.col("met").list.set_difference(pl.concat_list("split")).list.len() > 0
    away = pl.lit(by_user) & pl.col("user_id").is_not_null() & (pl.col("own") != pl.col("split"))
    frame = frame.with_columns(torn=torn, away=away & ~torn)
    notes = {TORN: int(frame["torn"].sum()), ELSEWHERE: int(frame["away"].sum())}
    kept = frame.filter(~pl.col("torn"), ~pl.col("away"))
    helpers = ("component", "own", "elder_side", "elder_cluster", "met", "torn", "away")
    return Outcome(kept.drop(helpers), notes)


def _elders(
    number: int, components: npt.NDArray[np.int64], kin: Iterable[tuple[int, Sample]]
) -> tuple[Sequence[Sample | None], Sequence[list[str]]]:
    """Of each row the oldest sample its component is alike to, and the sides it meets itself."""
    oldest: dict[int, Sample] = {}
    met: list[list[str]] = [[] for _ in range(number)]
    for row, sample in kin:
        known = oldest.get(int(components[row]))
        if known is None or sample.age < known.age:
            oldest[int(components[row])] = sample
        if sample.side not in met[row]:
            met[row].append(sample.side)
    return [oldest.get(int(component)) for component in components], met


def side_of(name: str, settings: CurationSettings) -> str:
    """The side of a user or a request: equal names, equal sides."""
    place = unit_interval(name)
    if place < settings.validation_share:
        return "validation"
    return "test" if place < settings.validation_share + settings.test_share else "train"


def unit_interval(name: str) -> float:
    """A number in [0, 1) that hangs on `name` alone."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:13], 16) / 16**13
