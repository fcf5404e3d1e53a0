"""What was curated before is found in the file, block by block, as it was put there."""

from contextlib import closing

import numpy as np
import polars as pl

from flows.curation.kin import kin_of
from flows.curation.known import KnownSignatures
from flows.curation.signatures import LongTexts, sign
from tests.flows.curation.test_neardup import SETTINGS, history_of, sample, signed

TEXTS = [" ".join(f"w{number}{place}" for place in range(20)) for number in range(5)]


def frame(texts: list[str]) -> pl.DataFrame:
    column = pl.Series(texts, dtype=pl.String)
    return pl.DataFrame(
        {
            "signature": sign(column, min_words=12),
            "request_signature": sign(column, min_words=100),
        }
    )


def test_ids_and_signatures_come_back_block_by_block() -> None:
    with closing(KnownSignatures()) as found:
        found.add(pl.Series(["é", "longer"]), frame(TEXTS[:2]))
        found.add(pl.Series(["short"]), frame(["too short"]))
        found.add(pl.Series(["c", "short", "d"]), frame([TEXTS[2], "too short", TEXTS[3]]))
        blocks = list(found.blocks("signature"))
        requests = list(found.blocks("request_signature"))
    assert [[name.decode() for name in ids] for ids, _ in blocks] == [["é", "longer"], ["c", "d"]]
    expected = LongTexts(TEXTS[:4], signed(TEXTS[:4])).signatures
    assert np.array_equal(np.concatenate([block for _, block in blocks]), expected)
    assert [block.any() for _, block in requests] == [False, False]


def test_kin_is_found_in_a_history() -> None:
    samples = {str(number): sample(str(number), text) for number, text in enumerate(TEXTS)}
    texts = [TEXTS[3].replace("w30 ", "other "), "something else " * 10]
    found = kin_of(
        LongTexts(texts, signed(texts)),
        history_of(samples, TEXTS),
        "signature",
        similarity=SETTINGS.similarity,
    )
    assert [(place, old.id) for place, old in found] == [(0, "3")]
