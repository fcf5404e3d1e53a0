"""Whom to believe: weights of raters, feedback to hold back, and text that gives orders to models.

Pure functions of frames. A *frame* has one row per sample that curation would learn from,
with the columns of `SAMPLES`; *events* have one row per piece of feedback, with those of
`EVENTS`. Nothing here throws anything away: what is held back has a reason, and a reviewer
can release it.
"""

from __future__ import annotations

import polars as pl

from flows.curation import phrases
from registry.settings_signals import TrustSettings

SAMPLES: dict[str, pl.DataType | type[pl.DataType]] = {
    "id": pl.String,
    "input_text": pl.String,
    "target": pl.String,
    "source": pl.String,
    "target_tool": pl.String,
    "language": pl.String,
}
EVENTS: dict[str, pl.DataType | type[pl.DataType]] = {
    "interaction_id": pl.String,
    "rater": pl.String,
    "at": pl.Datetime("us", "UTC"),
    "thumb": pl.Int64,
    "quality_score": pl.Float64,
    "target_tool": pl.String,
    "text": pl.String,
    "corrected_output": pl.String,
    "is_review": pl.Boolean,
}
"""`rater` is null where nobody knows who it was; such feedback, and a reviewer's, is believed."""
SCORE_BINS = 10
PRIOR_OTHERS = 4.0
"""What others think of such answers is pulled to what all think by so many opinions."""
MOST_OF_ONE = 5.0
"""Opinions of one rater that count in what others think of such answers: nobody is the crowd."""
CARELESS, CONTRARY = 0.6, 0.4
"""How those who do not mean what they say divide up."""
NOISE = 0.15
"""Nobody's opinion is more predictable than this: taste is not malice."""
MIN_COMMENT_CHARS = 20
"""A shorter comment ("Perfect!") is no copy of another."""


def rater_weights(events: pl.DataFrame, settings: TrustSettings) -> pl.DataFrame:
    """`rater`, `rater_weight` in [0, 1], `num_ratings`: how far each rater is to be believed.

    The weight is the chance, relative to what it was before, that the rater's opinions are
    meant: they follow what other people think of such answers (same tool, like score), rather
    than what they think of answers in general (careless) or the contrary (contrary).
    """
    rated = _with_expected(events.filter(~pl.col("is_review"), pl.col("thumb").is_in([-1, 1])))
    liked, expected = pl.col("liked"), pl.col("expected").clip(NOISE, 1 - NOISE)
    general = pl.col("everybody").clip(NOISE, 1 - NOISE)
    chances = rated.with_columns(
        meant=_chance(liked, expected).log(),
        careless=_chance(liked, general).log(),
        contrary=_chance(liked, 1 - expected).log(),
    )
    by_rater = chances.group_by("rater").agg(
        pl.col("meant", "careless", "contrary").sum(), num_ratings=pl.len()
    )
    honest = settings.prior_honest
    odds = (1 - honest) * (
        CARELESS * (pl.col("careless") - pl.col("meant")).clip(-50, 50).exp()
        + CONTRARY * (pl.col("contrary") - pl.col("meant")).clip(-50, 50).exp()
    )
    meant = honest / (honest + odds)
    return by_rater.select(
        "rater",
        rater_weight=(meant / honest).clip(0.0, 1.0),
        num_ratings=pl.col("num_ratings").cast(pl.Int64),
    ).sort("rater")


def weigh_raters(
    frame: pl.DataFrame, events: pl.DataFrame, settings: TrustSettings | None = None
) -> pl.DataFrame:
    """Add `rater_weight`: the least weight of those who rated the row; 1 where nobody is known.

    Whoever has given fewer than `min_ratings` counts in full: a bad day is no bad will.
    """
    settings = settings or TrustSettings()
    known = rater_weights(events, settings)
    weights = known.filter(pl.col("num_ratings") >= settings.min_ratings)
    least = (
        events.filter(~pl.col("is_review"))
        .join(weights, on="rater")
        .group_by(pl.col("interaction_id").alias("id"))
        .agg(pl.col("rater_weight").min())
    )
    found = frame.drop("rater_weight", strict=False).join(
        least, on="id", how="left", maintain_order="left"
    )
    return found.with_columns(pl.col("rater_weight").fill_null(1.0))


def quarantine(
    frame: pl.DataFrame, events: pl.DataFrame, settings: TrustSettings | None = None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows to go on with, and those held back with a `reason` (text)."""
    settings = settings or TrustSettings()
    frame = frame if "rater_weight" in frame.columns else weigh_raters(frame, events, settings)
    # What a reviewer has said of an answer stands above all suspicion.
    reviewed = events.filter(pl.col("is_review"))["interaction_id"]
    reasons = pl.concat(
        [
            _distrusted(frame, settings),
            _bursts(events, settings),
            _copies(events, settings),
            phrases.by_few(frame, events, settings),
        ]
    )
    reasons = reasons.filter(~pl.col("id").is_in(reviewed.implode()))
    first = reasons.unique("id", keep="first", maintain_order=True)
    kept = frame.join(first, on="id", how="anti", maintain_order="left")
    return kept, frame.join(first, on="id", how="inner", maintain_order="left")


def flag_injection(frame: pl.DataFrame, column: str = "target") -> pl.DataFrame:
    """Add `injection`: whether the text gives orders to a model that reads it."""
    plain = (
        pl.col(column)
        .fill_null("")
        .str.normalize("NFKC")
        .str.replace_all(_INVISIBLE, "")
        .str.to_lowercase()
    )
    return frame.with_columns(injection=plain.str.contains(_INJECTION))


def _with_expected(rated: pl.DataFrame) -> pl.DataFrame:
    """Add `liked` and `expected`, the share of other raters who like such an answer.

    Of what a rater said of one answer, what was said last counts.
    """
    such = ["target_tool", "bin"]
    rated = (
        rated.filter(pl.col("rater").is_not_null())
        .sort("at", maintain_order=True)
        .unique(["rater", "interaction_id"], keep="last", maintain_order=True)
        .with_columns(
            liked=(pl.col("thumb") == 1).cast(pl.Float64),
            bin=(pl.col("quality_score").fill_null(-1.0) * SCORE_BINS).floor(),
        )
        .with_columns(one=(MOST_OF_ONE / pl.len().over([*such, "rater"])).clip(upper_bound=1.0))
    )

    def of_others(quantity: pl.Expr, group: list[str]) -> pl.Expr:
        own = quantity.sum().over([*group, "rater"])
        return (quantity.sum().over(group) if group else quantity.sum()) - own

    one, liked = pl.col("one"), pl.col("liked") * pl.col("one")
    everybody = (of_others(liked, []) + 1) / (of_others(one, []) + 2)
    near = of_others(liked, such) + PRIOR_OTHERS * pl.col("everybody")
    return rated.with_columns(everybody=everybody).with_columns(
        expected=near / (of_others(one, such) + PRIOR_OTHERS)
    )


def _chance(liked: pl.Expr, chance: pl.Expr) -> pl.Expr:
    return liked * chance + (1 - liked) * (1 - chance)


def _distrusted(frame: pl.DataFrame, settings: TrustSettings) -> pl.DataFrame:
    trust = pl.col("rater_weight").round(2).cast(pl.String)
    return frame.filter(pl.col("rater_weight") < settings.min_weight).select(
        "id", reason=pl.format("the rater disagrees with everyone (trust {})", trust)
    )


def _bursts(events: pl.DataFrame, settings: TrustSettings) -> pl.DataFrame:
    """Feedback that came faster than anybody reads."""
    known = events.filter(pl.col("rater").is_not_null(), ~pl.col("is_review"))
    window = f"{int(settings.burst_seconds * 1e6)}us"
    counted = known.sort("rater", "at").with_columns(
        before=pl.len().rolling(index_column="at", period=window).over("rater")
    )
    # All of a burst, its beginning too: what comes after counts for what came before.
    after = pl.col("before").max().rolling("at", period=window, offset="0us", closed="left")
    inside = counted.with_columns(size=after.over("rater")).filter(
        pl.col("size") > settings.burst_ratings
    )
    largest = inside.group_by(pl.col("interaction_id").alias("id")).agg(pl.col("size").max())
    return largest.sort("id").select(
        "id",
        reason=pl.format(
            "{} pieces of feedback within {} s by one person",
            "size",
            pl.lit(f"{settings.burst_seconds:g}"),
        ),
    )


def _copies(events: pl.DataFrame, settings: TrustSettings) -> pl.DataFrame:
    """The same comment, or the same correction, on several requests."""
    found = [
        _copies_of(events, "text", "comment", least=MIN_COMMENT_CHARS, settings=settings),
        _copies_of(events, "corrected_output", "correction", least=1, settings=settings),
    ]
    return pl.concat(found)


def _copies_of(
    events: pl.DataFrame, column: str, name: str, *, least: int, settings: TrustSettings
) -> pl.DataFrame:
    plain = pl.col(column).str.to_lowercase().str.replace_all(r"\W+", " ").str.strip_chars()
    texts = events.filter(~pl.col("is_review")).select("interaction_id", plain=plain)
    texts = texts.filter(pl.col("plain").str.len_chars() >= least).unique()
    sizes = texts.with_columns(size=pl.len().over("plain"))
    return (
        sizes.filter(pl.col("size") >= settings.copied_min)
        .sort("interaction_id")
        .select(
            id="interaction_id",
            reason=pl.format(f"the same {name} on {{}} different requests", "size"),
        )
    )


_INVISIBLE = r"[\p{Cf}\p{Mn}]"
_INJECTION = "|".join(
    (
        # Orders to forget what was said.
        r"(?:ignore|disregard|forget|override|bypass)\W+(?:\w+\W+){0,3}?"
        r"(?:previous|prior|above|earlier|preceding|former|your|system|all|any)\W+(?:\w+\W+){0,2}?"
        r"(?:instruction|prompt|rule|direction|guideline|guardrail|message|context)s?",
        r"تجاهل(?:ي|وا)?\s+(?:\S+\s+){0,3}?(?:التعليمات|الاوامر|الأوامر|القواعد)",
        # Another role, or the one behind the curtain.
        r"(?:reveal|print|show|repeat|output|leak)\W+(?:\w+\W+){0,3}?"
        r"(?:system|hidden|initial|developer)\W+(?:prompt|message|instruction)s?",
        r"you\s+are\s+now\s+(?:in\s+)?(?:dan\b|developer\s+mode|jailbroken|unrestricted)",
        r"\b(?:do\s+anything\s+now|jailbreak\s+mode|developer\s+mode\s+enabled)\b",
        # The marks that chat templates and agents are steered by.
        r"<\|?(?:im_start|im_end|system|endoftext|eot_id|start_header_id)\|?>",
        r"\[/?inst\]|<</?sys>>|###\s*(?:system|instruction)\s*:",
        r"<\/?(?:tool_call|function_call|system_prompt)\b",
        # Pictures that carry data away when they are shown.
        r"!\[[^\]]*\]\(https?://[^)\s]*[?&][^)\s]*=",
    )
)
