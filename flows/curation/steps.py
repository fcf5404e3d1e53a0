"""The steps of curation: each takes a frame and gives a smaller one, and touches nothing else.

A frame has one row per interaction, with the columns of `SCHEMA` and those that the steps
before have added.
"""

import hashlib
from collections.abc import Callable

import polars as pl

from registry import prompts, quality
from registry.settings import CurationSettings

SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "id": pl.String,
    "input_text": pl.String,
    "messages": pl.String,
    "structured_prompt": pl.String,
    "corrected_output": pl.String,
    "quality_score": pl.Float64,
    "user_feedback": pl.Int64,
    "target_tool": pl.String,
    "language": pl.String,
}
"""`messages` is JSON text, null where the interaction was a single structured prompt."""

Step = Callable[[pl.DataFrame], pl.DataFrame]


def with_target(frame: pl.DataFrame) -> pl.DataFrame:
    """Add `target`, `source` and the target's own quality; rows with nothing to learn go.

    A correction is the best label there is, so it replaces what the model wrote; in a
    conversation it stands as it was written.
    """
    corrected = _filled("corrected_output")
    frame = frame.filter(_filled("input_text"), corrected | _filled("structured_prompt"))
    frame = frame.with_columns(
        source=pl.when(corrected).then(pl.lit("corrected")).otherwise(pl.lit("accepted")),
    )
    targets: list[str] = []
    scores: list[float | None] = []
    for row in frame.iter_rows(named=True):
        if row["source"] == "corrected" and row["messages"] is not None:
            targets.append(row["corrected_output"])
            scores.append(None)
        elif row["source"] == "corrected":
            targets.append(
                prompts.normalise(row["corrected_output"], target_tool=row["target_tool"])
            )
            scores.append(quality.score(targets[-1], target_tool=row["target_tool"]))
        else:
            targets.append(row["structured_prompt"])
            scores.append(row["quality_score"])
    return frame.with_columns(
        target=pl.Series(targets, dtype=pl.String),
        quality_score=pl.Series(scores, dtype=pl.Float64),
    )


def filter_quality(settings: CurationSettings) -> Step:
    """Keep accepted answers of enough quality, and corrections.

    Answers in conversations have no score, since the format does not apply to them: what
    people say of them decides.
    """
    least = settings.min_quality
    if settings.maybe_min_quality is not None:
        least = min(least, settings.maybe_min_quality)

    def step(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.filter(_is_at_least(least) | _is_corrected())

    return step


def filter_feedback(settings: CurationSettings) -> Step:
    """Keep accepted answers that people liked enough, and corrections.

    Answers in the band below `min_quality` that `maybe_min_quality` opens need a thumb up.
    """

    def step(frame: pl.DataFrame) -> pl.DataFrame:
        thumb = pl.col("user_feedback").fill_null(-2)
        liked = thumb >= settings.min_feedback
        good = _is_at_least(settings.min_quality)
        return frame.filter((liked & good) | (thumb >= 1) | _is_corrected())

    return step


def with_hashes(frame: pl.DataFrame) -> pl.DataFrame:
    """Add `content_hash` (of request and target) and `cluster_id` (of the request alone).

    Case and white space do not count.
    """
    request = pl.concat_str(
        [_plain("input_text"), _plain("messages"), _tool("target_tool")], separator="\x1f"
    )
    return frame.with_columns(
        cluster_id=request.map_elements(_digest, return_dtype=pl.String),
        content_hash=pl.concat_str([request, _plain("target")], separator="\x1f").map_elements(
            _digest, return_dtype=pl.String
        ),
    )


def drop_exact_duplicates(frame: pl.DataFrame) -> pl.DataFrame:
    """Keep the first row of each content."""
    return frame.unique("content_hash", keep="first", maintain_order=True)


def drop_known(known: set[str]) -> Step:
    """Drop the contents that were curated before."""

    def step(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.filter(~pl.col("content_hash").is_in(list(known)))

    return step


def drop_held(held: set[str]) -> Step:
    """Drop the interactions that wait for a reviewer, or that one has rejected."""

    def step(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.filter(~pl.col("id").is_in(list(held)))

    return step


def with_split(settings: CurationSettings) -> Step:
    """Add `split`. It hangs on the cluster's id alone: equal requests stay on one side for ever."""

    def step(frame: pl.DataFrame) -> pl.DataFrame:
        place = pl.col("cluster_id").map_elements(_unit_interval, return_dtype=pl.Float64)
        return frame.with_columns(
            split=pl.when(place < settings.validation_share)
            .then(pl.lit("validation"))
            .otherwise(pl.lit("train"))
        )

    return step


def _filled(column: str) -> pl.Expr:
    return pl.col(column).str.strip_chars().str.len_chars().fill_null(0) > 0


def _is_corrected() -> pl.Expr:
    return pl.col("source") == "corrected"


def _is_at_least(quality_score: float) -> pl.Expr:
    unscored = pl.col("quality_score").is_null() & pl.col("messages").is_not_null()
    return unscored | (pl.col("quality_score").fill_null(0.0) >= quality_score)


def _plain(column: str) -> pl.Expr:
    lowered = pl.col(column).fill_null("").str.to_lowercase()
    return lowered.str.replace_all(r"\s+", " ").str.strip_chars()


def _tool(column: str) -> pl.Expr:
    return pl.col(column).map_elements(
        prompts.nearest_tool, return_dtype=pl.String, skip_nulls=False
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _unit_interval(digest: str) -> float:
    return int(digest[:13], 16) / 16**13
