"""The steps of curation: each takes a frame and gives a smaller one, and touches nothing else.

A frame has one row per interaction, with the columns of `frames.SCHEMA` and those that the
steps before have added.
"""

import hashlib
from collections.abc import Callable, Collection

import polars as pl

from registry import prompts, quality
from registry.settings_curation import CurationSettings

Frames = Callable[[pl.DataFrame], pl.DataFrame]


def with_target(frame: pl.DataFrame) -> pl.DataFrame:
    """Add `target`, `source` and the target's own quality; rows with nothing to learn go.

    A correction is the best label there is, so it replaces what the model wrote, which becomes
    `rejected`; in a conversation it stands as it was written. `disliked`: a thumb down alone.
    """
    corrected = _filled("corrected_output")
    frame = frame.filter(_filled("input_text"), corrected | _filled("structured_prompt"))
    frame = frame.with_columns(
        source=pl.when(corrected).then(pl.lit("corrected")).otherwise(pl.lit("accepted")),
    )
    written = pl.struct("corrected_output", "messages", "target_tool")
    rewritten = frame.filter(_is_corrected()).select(
        "id", corrected=written.map_elements(_corrected, return_dtype=_CORRECTED)
    )
    frame = frame.join(rewritten, on="id", how="left", maintain_order="left")
    by_hand = pl.col("corrected").struct
    return frame.with_columns(
        target=pl.when(_is_corrected())
        .then(by_hand.field("target"))
        .otherwise(pl.col("structured_prompt")),
        quality_score=pl.when(_is_corrected())
        .then(by_hand.field("score"))
        .otherwise(pl.col("quality_score")),
        rejected=pl.when(_is_corrected() & _filled("structured_prompt")).then("structured_prompt"),
        disliked=~_is_corrected() & (pl.col("user_feedback") < 0).fill_null(False),
    ).drop("corrected")


_CORRECTED = pl.Struct({"target": pl.String, "score": pl.Float64})


def _corrected(row: dict[str, str | None]) -> dict[str, str | float | None]:
    text = row["corrected_output"] or ""
    if row["messages"] is not None:
        return {"target": text, "score": None}
    target = prompts.normalise(text, target_tool=row["target_tool"])
    return {"target": target, "score": quality.score(target, target_tool=row["target_tool"])}


def filter_quality(settings: CurationSettings) -> Frames:
    """Keep accepted answers of enough quality, and corrections.

    Answers in conversations have no score, since the format does not apply to them: what
    people say of them decides.
    """

    def step(frame: pl.DataFrame) -> pl.DataFrame:
        least = settings.min_quality_if_liked
        return frame.filter(_is_at_least(least) | _is_corrected() | _is_kept(settings))

    return step


def filter_feedback(settings: CurationSettings) -> Frames:
    """Keep accepted answers that people liked enough, and corrections.

    Answers in the band below `min_quality` that `maybe_min_quality` opens need a thumb up.
    With `keep_disliked` what people disliked goes on too, marked as such.
    """

    def step(frame: pl.DataFrame) -> pl.DataFrame:
        thumb = pl.col("user_feedback").fill_null(-2)
        liked = thumb >= settings.min_feedback
        good = _is_at_least(settings.min_quality)
        wanted = (liked & good) | (thumb >= 1) | _is_corrected()
        kept = frame.filter(wanted | _is_kept(settings))
        return kept.with_columns(disliked=pl.col("disliked") & ~wanted)

    return step


def with_hashes(frame: pl.DataFrame) -> pl.DataFrame:
    """Add `content_hash` (of request and target) and `request_hash` (of the request alone).

    Case and white space do not count. What is disliked has a content of its own: the same
    answer may be liked by somebody else.
    """
    request = pl.concat_str(
        [plain("input_text"), plain("messages"), pl.lit(nearest_tools(frame["target_tool"]))],
        separator="\x1f",
    )
    mark = pl.when("disliked").then(pl.lit("\x1fdisliked")).otherwise(pl.lit(""))
    content = pl.concat_str([request, plain("target") + mark], separator="\x1f")
    texts = frame.select(request.alias("request"), content.alias("content"))
    return frame.with_columns(
        request_hash=_digests(texts["request"]), content_hash=_digests(texts["content"])
    )


def drop_exact_duplicates(frame: pl.DataFrame) -> pl.DataFrame:
    """Keep the first row of each content."""
    return frame.unique("content_hash", keep="first", maintain_order=True)


def drop_known(known: Collection[str]) -> Frames:
    """Drop the contents that were curated before."""
    listed = pl.Series("content_hash", list(known), dtype=pl.String).to_frame()

    def step(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.join(listed, on="content_hash", how="anti", maintain_order="left")

    return step


def drop_interactions(ids: Collection[str]) -> Frames:
    """Drop the interactions that a reviewer has still to see, or has rejected."""
    listed = pl.Series("id", list(ids), dtype=pl.String).to_frame()

    def step(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.join(listed, on="id", how="anti", maintain_order="left")

    return step


def _filled(column: str) -> pl.Expr:
    return pl.col(column).str.strip_chars().str.len_chars().fill_null(0) > 0


def _is_corrected() -> pl.Expr:
    return pl.col("source") == "corrected"


def _is_kept(settings: CurationSettings) -> pl.Expr:
    return pl.col("disliked") & pl.lit(settings.keep_disliked)


def _is_at_least(quality_score: float) -> pl.Expr:
    unscored = pl.col("quality_score").is_null() & pl.col("messages").is_not_null()
    return unscored | (pl.col("quality_score").fill_null(0.0) >= quality_score)


def plain(column: str) -> pl.Expr:
    """A text as contents are compared: whatever its case and white space."""
    lowered = pl.col(column).fill_null("").str.to_lowercase()
    return lowered.str.replace_all(r"\s{2,}|[^\S ]", " ").str.strip_chars()


def nearest_tools(names: pl.Series) -> pl.Series:
    """The tool that each free name means."""
    known = {name: prompts.nearest_tool(name) for name in names.unique()}
    return pl.Series(names.name, [known[name] for name in names], dtype=pl.String)


def _digests(texts: pl.Series) -> pl.Series:
    return pl.Series([hashlib.sha256(text.encode()).hexdigest() for text in texts], dtype=pl.String)
