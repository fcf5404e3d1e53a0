"""What is compared within a batch and with everything before it, and how the batch is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from flows.curation import steps
from flows.curation.engine import Engine
from flows.curation.neardup import History, drop_near_duplicates, near_duplicates
from flows.curation.past import Past
from flows.curation.rows import Page, Tally, describe, examples
from flows.curation.signatures import sample_text
from flows.curation.splitting import with_split
from registry.settings_curation import CurationSettings

DISTINCT, NEW = "distinct", "not curated before"
NO_REPETITION, ON_ONE_SIDE = "no near-duplicate", "on one side of the split"


@dataclass(frozen=True)
class Batch:
    """What became of a batch of interactions."""

    kept: pl.DataFrame
    """The new samples."""
    seen: Sequence[str]
    """Interactions that were read."""
    standing: dict[str, str]
    """Content of those among them that pass the filters."""
    held: dict[str, str]
    before: Tally
    after: Tally
    """The distributions of `kept`."""


def compare(pages: Sequence[Page], past: Past, settings: CurationSettings, engine: Engine) -> Batch:
    """Drop what repeats something else, and say on which side the rest stands."""
    tally = Tally()
    for page in pages:
        tally.add(page.tally, max_examples=settings.report_examples)
    seen = [name for page in pages for name in page.seen]
    liked = pl.concat([page.frame for page in pages])
    distinct = steps.drop_exact_duplicates(liked)
    new = steps.drop_known(past.known_contents(distinct["content_hash"].to_list()))(distinct)
    standing = dict(zip(liked["id"], liked["content_hash"], strict=True))
    unique = _without_repetitions(new, past.history(seen, standing), settings, engine)
    kept = with_split(unique, settings, known=past.known_sides(unique["cluster_id"].to_list()))
    for name, before, after in (
        (DISTINCT, liked, distinct),
        (NEW, distinct, new),
        (NO_REPETITION, new, unique),
        (ON_ONE_SIDE, unique, kept),
    ):
        tally.left[name] = after.height
        if after.height < before.height and settings.report_examples:
            gone = before.join(after.select("id"), on="id", how="anti", maintain_order="left")
            tally.examples[name] = examples(gone.head(settings.report_examples), settings)
    described = Tally()
    describe(kept, described)
    return Batch(
        kept=kept,
        seen=seen,
        standing=standing,
        held={name: why for page in pages for name, why in page.held.items()},
        before=tally,
        after=described,
    )


def _without_repetitions(
    frame: pl.DataFrame, history: History, settings: CurationSettings, engine: Engine
) -> pl.DataFrame:
    texts = [
        sample_text(*row) for row in frame.select("messages", "input_text", "target").iter_rows()
    ]
    repeats, signatures = near_duplicates(
        texts,
        (frame["source"] == "corrected").to_numpy(),
        frame["quality_score"].fill_null(0.0).to_numpy().astype(np.float64),
        settings.near_duplicates,
        history=history,
        candidates=engine.candidate_pairs,
    )
    signed = frame.with_columns(signature=pl.Series(signatures, dtype=pl.Binary))
    return drop_near_duplicates(signed, repeats)
