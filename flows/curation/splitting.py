"""Train, validation or test: decided once for each sample, and never changed.

All samples of a user stand on one side, told by a hash of the user, so that a model is judged by
people it has not learned from; where there are few users, a hash of the request tells. Equal
requests stand on the side of the first of them. Who cannot stand there is left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import polars as pl

from registry.settings_curation import CurationSettings

SIDES = ("train", "validation", "test")


def with_split(
    frame: pl.DataFrame, settings: CurationSettings, *, known: Mapping[str, str]
) -> pl.DataFrame:
    """Add `split`; rows go whose request stands on another side than their user.

    `known`: the sides of clusters that were curated before.
    """
    by_user = frame["user_id"].drop_nulls().n_unique() >= settings.split_by_user_from
    group = pl.coalesce("user_id", "cluster_id") if by_user else pl.col("cluster_id")
    ids = frame.select(group).to_series()
    sides = {name: side_of(name, settings) for name in ids.unique()}
    frame = frame.with_columns(
        split=pl.Series([sides[name] for name in ids], dtype=pl.String),
        earlier=pl.Series([known.get(name) for name in frame["cluster_id"]], dtype=pl.String),
    )
    first = pl.coalesce("earlier", pl.col("split").first().over("cluster_id"))
    if not by_user:
        return frame.with_columns(split=first).drop("earlier")
    free = pl.col("user_id").is_null()
    frame = frame.with_columns(split=pl.when(free).then(first).otherwise("split"), side=first)
    return frame.filter(pl.col("split") == pl.col("side")).drop("earlier", "side")


def side_of(name: str, settings: CurationSettings) -> str:
    """The side of a user or a request: equal names, equal sides."""
    place = unit_interval(name)
    if place < settings.validation_share:
        return "validation"
    return "test" if place < settings.validation_share + settings.test_share else "train"


def unit_interval(name: str) -> float:
    """A number in [0, 1) that hangs on `name` alone."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:13], 16) / 16**13
