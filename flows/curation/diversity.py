"""Caps on how much of one kind a dataset may hold: per template, user, domain and language.

Who stays inside a cap is drawn without replacement with the quality score as weight (Efraimidis
& Spirakis 2006: the k largest u^(1/w)), where u is the sample's own number: the same samples
give the same choice. Or farthest first (Gonzalez 1985): each next one is the least like all
that were chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl

from flows.curation.signatures import Signatures
from registry.settings_curation import DiversitySettings

MAX_COMPARISONS = 20_000_000
"""Farthest first compares each chosen sample with all others; beyond this the score decides."""
LEAST_WEIGHT = 0.01
SignaturesOf = Callable[[Sequence[str]], Signatures]


def capped(
    frame: pl.DataFrame, settings: DiversitySettings, signatures: SignaturesOf
) -> tuple[pl.DataFrame, dict[str, int]]:
    """The rows inside all caps in their order, and how many were left after each cap.

    Needs `id`, `template_id`, `user_id`, `domain`, `language`, `quality_score`, `reservoir_key`.
    Samples of nobody in particular, or of no known language, are under no such cap.
    """
    frame = frame.with_columns(draw=_draw())
    left = {}
    for column, limit in (
        ("template_id", settings.max_per_template),
        ("user_id", settings.max_per_user),
        ("domain", settings.max_per_domain),
        ("language", settings.max_per_language),
    ):
        if limit is None:
            continue
        frame = _inside(frame, column, limit, settings, signatures)
        left[f"at most {limit} per {column.removesuffix('_id')}"] = frame.height
    return frame.drop("draw"), left


def farthest_first(signatures: Signatures, first: int, num: int) -> list[int]:
    """The numbers of `num` rows, each the least like those before it; `first` begins."""
    chosen = [first]
    likeness = (signatures == signatures[first]).mean(axis=1)
    likeness[first] = np.inf
    while len(chosen) < num:
        following = int(np.argmin(likeness))
        chosen.append(following)
        likeness = np.maximum(likeness, (signatures == signatures[following]).mean(axis=1))
        likeness[following] = np.inf
    return chosen


def _draw() -> pl.Expr:
    weight = pl.col("quality_score").fill_null(1.0).clip(LEAST_WEIGHT, 1.0)
    return pl.col("reservoir_key").fill_null(0.5).clip(1e-12, 1.0).pow(1 / weight)


def _inside(
    frame: pl.DataFrame,
    column: str,
    limit: int,
    settings: DiversitySettings,
    signatures: SignaturesOf,
) -> pl.DataFrame:
    rank = pl.col("draw").rank("ordinal", descending=True).over(column)
    frame = frame.with_columns(size=pl.len().over(column), rank=rank)
    free = pl.col(column).is_null() | (pl.col("size") <= limit)
    kept = set(frame.filter(free | (pl.col("rank") <= limit))["id"])
    if settings.choice == "farthest":
        for _, group in frame.filter(~free).sort("rank").group_by(column, maintain_order=True):
            if group.height * limit <= MAX_COMPARISONS:
                names = group["id"].to_list()
                chosen = farthest_first(signatures(names), 0, limit)
                kept = (kept - set(names)) | {names[place] for place in chosen}
    ids = pl.Series("id", sorted(kept), dtype=pl.String).to_frame()
    return frame.join(ids, on="id", how="semi", maintain_order="left").drop("size", "rank")
