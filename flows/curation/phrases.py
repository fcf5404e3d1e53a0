"""Phrases that a few people bring into what would be learned, unasked.

A phrase is a run of words of the target that are not in what the model was asked. The right
wording, when people teach it, comes from many of them; a slogan comes from those who want
it taught.
"""

from __future__ import annotations

import polars as pl

from registry import prompts
from registry.settings_signals import TrustSettings


def by_few(frame: pl.DataFrame, events: pl.DataFrame, settings: TrustSettings) -> pl.DataFrame:
    """`id` and `reason` of the rows with a phrase that comes often, but from few.

    Of those who rated answers of the same target tool, no more than `phrase_max_raters` bring
    it, `phrase_min` times or more. Where so few people rated that one of them is more than
    that share, nobody can be told from the crowd, and nothing is held back.
    """
    rows = _with_rater(frame, events)
    found = introduced(rows, words=settings.phrase_words)
    people = _people(events, rows)
    spread = found.group_by("tool", "phrase").agg(
        times=pl.col("id").n_unique(), few=pl.col("rater").n_unique()
    )
    suspect = spread.join(people, on="tool").filter(
        pl.col("times") >= settings.phrase_min,
        pl.col("few") <= pl.col("people") * settings.phrase_max_raters,
    )
    worst = suspect.sort("times", "phrase", descending=[True, False])
    return (
        found.join(worst, on=["tool", "phrase"], maintain_order="right")
        .unique("id", keep="first", maintain_order=True)
        .select(
            "id",
            reason=pl.format(
                "“{}” comes {} times from {} of {} people", "phrase", "times", "few", "people"
            ),
        )
    )


def introduced(rows: pl.DataFrame, *, words: int) -> pl.DataFrame:
    """`id`, `tool`, `rater`, `phrase`: every run of `words` words that nobody asked for."""
    said = _exploded(rows, "target").with_row_index("place")
    asked = _exploded(rows, "asked").select("id", "word").unique()
    fresh = said.join(asked, on=["id", "word"], how="anti", maintain_order="left")
    # A run is consecutive words of one row: their places follow each other.
    last = pl.col("place").shift(-(words - 1))
    parts = [pl.col("word").shift(-step) for step in range(words)]
    return (
        fresh.with_columns(
            phrase=pl.concat_str(parts, separator=" "),
            is_run=(last - pl.col("place") == words - 1)
            & (pl.col("id").shift(-(words - 1)) == pl.col("id")),
        )
        .filter(pl.col("is_run"))
        .select("id", "tool", "rater", "phrase")
        .unique(maintain_order=True)
    )


def _with_rater(frame: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """Rows with `tool`, `asked` and `rater`; those of nobody known stand for one each."""
    raters = (
        events.filter(~pl.col("is_review"), pl.col("rater").is_not_null())
        .sort("at")
        .group_by(pl.col("interaction_id").alias("id"))
        .agg(pl.col("rater").last())
    )
    tools = [prompts.nearest_tool(tool) for tool in frame["target_tool"]]
    languages = [prompts.nearest_language(language) for language in frame["language"]]
    asked = [
        prompts.instruction(text or "", target_tool=tool, language=language)
        for text, tool, language in zip(frame["input_text"], tools, languages, strict=True)
    ]
    return (
        frame.select("id", "target")
        .with_columns(
            tool=pl.Series(tools, dtype=pl.String), asked=pl.Series(asked, dtype=pl.String)
        )
        .join(raters, on="id", how="left", maintain_order="left")
        .with_columns(pl.col("rater").fill_null(pl.col("id")))
    )


def _people(events: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """`tool`, `people`: how many rated its answers."""
    tools = [prompts.nearest_tool(tool) for tool in events["target_tool"]]
    rated = events.select("rater", tool=pl.Series(tools, dtype=pl.String)).drop_nulls("rater")
    everybody = pl.concat([rated, rows.select("rater", "tool")])
    return everybody.group_by("tool").agg(people=pl.col("rater").n_unique())


def _exploded(rows: pl.DataFrame, column: str) -> pl.DataFrame:
    """One row per word of `column`, lower case, in order."""
    words = pl.col(column).fill_null("").str.to_lowercase().str.extract_all(r"[\p{L}\p{M}\p{N}]+")
    return rows.select("id", "tool", "rater", word=words).explode("word").drop_nulls("word")
