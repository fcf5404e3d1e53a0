"""What a sample is about: domain, use case, language and template, by simple rules.

The domain of a structured prompt is its target tool. Everything else is told by words: of the
rules below, the first that fits. `curation.classifier` puts another classification in their place.
"""

from __future__ import annotations

import hashlib

import polars as pl

from flows.curation.frames import words_of_request
from flows.curation.steps import nearest_tools

DOMAINS = {
    "code": r"\b(?:python|javascript|typescript|java|rust|sql|regex|function|code|bug|stack ?trace|"
    r"compile[rd]?|api|docker|kubernetes|unit tests?|class|script|algorithm)\b|```|كود|برمج",
    "email": r"\b(?:e-?mail|reply to|inbox|subject line|newsletter)\b|بريد|رسالة|إيميل|ايميل",
    "report": r"\b(?:report|summar\w+|minutes|figures|quarterly|analysis|memo)\b|تقرير|ملخص|لخص",
    "social": r"\b(?:tweet|post|hashtags?|linkedin|instagram|caption)\b|منشور|تغريدة",
    "image": r"\b(?:image|picture|photo|poster|logo|watercolou?r|illustration)\b|صورة|ملصق|شعار",
}
USE_CASES = {
    "translate": r"\btranslat\w+|\bin (?:arabic|english|french|german|spanish)\b|ترجم",
    "summarise": r"\bsummar\w+|\btl;?dr\b|\bshorten\b|لخص|ملخص|اختصر",
    "rewrite": r"\b(?:rewrite|rephrase|improve|edit|proofread|polish|correct)\b|أعد صياغة|صحح|حسن",
    "fix": r"\b(?:fix|debug|error|exception|why does|does not work|broken)\b|أصلح|خطأ",
    "explain": r"\b(?:explain|what (?:is|are)|how do(?:es)?|teach|difference between)\b|اشرح"
    r"|ما هو|ما هي",
    "plan": r"\b(?:plan|schedule|itinerary|roadmap|outline|agenda)\b|خطة|جدول",
    "write": r"\b(?:write|draft|compose|create|generate|announce|make|design)\b|اكتب|أكتب|صمم|أنشئ",
}
OTHER = "other"
_SCRIPTS = {
    "ar": r"[\u0600-\u06ff]",
    "he": r"[\u0590-\u05ff]",
    "ja": r"[\u3040-\u30ff]",
    "zh": r"[\u4e00-\u9fff]",
    "ko": r"[\uac00-\ud7af]",
    "hi": r"[\u0900-\u097f]",
    "ru": r"[\u0400-\u04ff]",
}
_SCRIPT_SHARE = 0.3
_SCRIPT_CHARS = 200
REQUEST_CHARS = 500
"""What a request is about stands in its beginning."""
TEMPLATE_WORDS = 5


def classify(frame: pl.DataFrame) -> pl.DataFrame:
    """Add `domain`, `use_case` and `spoken`: the language, as told or as its letters tell."""
    told = frame["target_tool"].is_not_null() & frame["messages"].is_null()
    text = frame.select(words_of_request().str.head(REQUEST_CHARS).str.to_lowercase()).to_series()
    tools = nearest_tools(frame["target_tool"])
    silent = (~told).arg_true()
    nameless = frame["language"].is_null().arg_true()
    return frame.with_columns(
        domain=tools.scatter(silent, _first(text.gather(silent), DOMAINS, "general")),
        use_case=_first(text, USE_CASES, OTHER),
        spoken=frame["language"].scatter(nameless, _script(text.gather(nameless))),
    )


def with_templates(frame: pl.DataFrame) -> pl.DataFrame:
    """Add `template_id`: requests that begin with the same words, whatever their numbers."""
    opening = (
        pl.col("input_text")
        .str.head(400)
        .str.to_lowercase()
        .str.replace_all(r"\d+", "0")
        .str.extract(rf"^\W*((?:\w+\W+){{0,{TEMPLATE_WORDS - 1}}}\w+)", 1)
        .fill_null("")
        .str.replace_all(r"\W+", " ")
    )
    found = frame.select(opening).to_series()
    ids = {text: hashlib.sha256(text.encode()).hexdigest()[:16] for text in found.unique()}
    return frame.with_columns(template_id=pl.Series([ids[text] for text in found], dtype=pl.String))


def _first(texts: pl.Series, rules: dict[str, str], otherwise: str) -> pl.Series:
    found = pl.lit(otherwise)
    for name, pattern in reversed(rules.items()):
        found = pl.when(pl.col("text").str.contains(pattern)).then(pl.lit(name)).otherwise(found)
    return texts.alias("text").to_frame().select(found).to_series()


def _script(texts: pl.Series) -> pl.Series:
    """The language that the letters tell; null for scripts that many languages share."""
    text = pl.col("text")
    odd = text.str.contains(r"[^\x00-\x7f]")
    letters = pl.when(odd).then(text.str.len_chars())
    found = pl.lit(None, dtype=pl.String)
    for name, pattern in reversed(_SCRIPTS.items()):
        share = pl.when(odd).then(text).str.count_matches(pattern) / letters
        found = pl.when(share >= _SCRIPT_SHARE).then(pl.lit(name)).otherwise(found)
    short = texts.str.head(_SCRIPT_CHARS).alias("text")
    return short.to_frame().select(found).to_series()
