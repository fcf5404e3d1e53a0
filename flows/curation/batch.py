"""What is compared within a batch and with everything before it, and how the batch is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from flows.curation import steps
from flows.curation.engine import Engine
from flows.curation.frames import Outcome
from flows.curation.kin import NOTHING, History, Kin, Sample
from flows.curation.neardup import alike_requests, near_duplicates
from flows.curation.past import Past
from flows.curation.rows import Page, Tally, describe, examples, requests
from flows.curation.splitting import with_split
from registry.settings_curation import CurationSettings

DISTINCT, NEW = "distinct", "not curated before"
DISLIKED = "disliked, kept apart"
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
    good = pl.concat([page.frame for page in pages])
    distinct = steps.drop_exact_duplicates(good)
    new = steps.drop_known(past.known_contents(distinct["content_hash"].to_list()))(distinct)
    standing = dict(zip(good["id"], good["content_hash"], strict=True))
    history = past.history(seen, standing)
    unique, kin = _without_repetitions(new, history, settings, engine)
    split = _split(unique, kin, history, past, settings, engine)
    for name, before, after in (
        (DISTINCT, good, distinct),
        (NEW, distinct, new),
        (NO_REPETITION, new, unique),
        (ON_ONE_SIDE, unique, split.frame),
    ):
        tally.left[name] = after.height
        if after.height < before.height and settings.report_examples:
            gone = before.join(after.select("id"), on="id", how="anti", maintain_order="left")
            tally.examples[name] = examples(gone.head(settings.report_examples), settings)
    tally.notes.update(split.notes)
    tally.notes[DISLIKED] += int(split.frame["disliked"].sum())
    described = Tally()
    describe(split.frame.filter(~pl.col("disliked")), described)
    return Batch(
        kept=split.frame,
        seen=seen,
        standing=standing,
        held={name: why for page in pages for name, why in page.held.items()},
        before=tally,
        after=described,
    )


def _without_repetitions(
    frame: pl.DataFrame, history: History, settings: CurationSettings, engine: Engine
) -> tuple[pl.DataFrame, Kin]:
    """The rows that repeat no other, and which earlier samples they are alike to.

    What is liked and what is disliked are compared apart: a pair of both is worth having.
    """
    frame = pl.concat([frame.filter(~pl.col("disliked")), frame.filter("disliked")])
    num_liked = int((~frame["disliked"]).sum())
    asked = requests(frame)
    texts = [f"{text}\n{target}" for text, target in zip(asked, frame["target"], strict=True)]
    corrected = (frame["source"] == "corrected").to_numpy()
    quality = frame["quality_score"].fill_null(0.0).to_numpy().astype(np.float64)
    repeats: list[npt.NDArray[np.bool_]] = []
    kin: list[tuple[int, Sample]] = []
    for part, known in ((slice(num_liked), history), (slice(num_liked, None), NOTHING)):
        found = near_duplicates(
            texts[part],
            frame["signature"][part],
            corrected[part],
            quality[part],
            settings.near_duplicates,
            history=known,
            candidates=engine.candidate_pairs,
        )
        repeats.append(found.repeats)
        kin += found.kin
    stay = ~np.concatenate(repeats)
    place = np.cumsum(stay) - 1
    return frame.filter(pl.Series(stay)), [(int(place[row]), s) for row, s in kin if stay[row]]


def _split(
    frame: pl.DataFrame,
    kin: Kin,
    history: History,
    past: Past,
    settings: CurationSettings,
    engine: Engine,
) -> Outcome:
    hashes = frame["request_hash"].to_list()
    asked = alike_requests(
        requests(frame),
        frame["request_signature"],
        hashes,
        settings.near_duplicates,
        history=history,
        candidates=engine.candidate_pairs,
    )
    equal: dict[str, list[Sample]] = {}
    for name, sample in past.equal_requests(set(hashes)):
        equal.setdefault(name, []).append(sample)
    same = [(row, sample) for row, name in enumerate(hashes) for sample in equal.get(name, ())]
    return with_split(frame, settings, components=asked.components, kin=[*kin, *asked.kin, *same])
