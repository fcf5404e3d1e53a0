"""Moderation: what a reviewer should see before it is learned. Nothing is thrown away here.

Word lists for English and Arabic in `words/`, matched as whole words through the ways in which
people disguise them: other letters and digits of the same look, accents, vowel signs, letters
repeated, starred out, or spaced. Phrases in which they mean something else (`words/allowed.txt`)
are taken out of the text first. All of it is one vectorised search.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import polars as pl

from flows.curation.frames import Outcome, words_of_request
from registry.errors import SettingsError
from registry.settings_curation import ModerationSettings

KIND = "moderation"
_LOOKS_LIKE = {
    "a": "4@",
    "b": "8",
    "c": "(",
    "e": "3",
    "g": "9",
    "i": "1!|",
    "l": "1|",
    "o": "0",
    "s": "5$",
    "t": "7+",
    "z": "2",
}
"""Signs that people write for a letter."""
_SAME_LETTER = dict(
    zip(
        "αаβвсϲеёεɡһнíіїικкӏмηпоοøрρгѕтτυцµωшхχуγأإآٱةىؤگ",
        "aabbcceeeghhiiiikklmnnooopprsttuuuwwxxyyااااهيوك",  # noqa: RUF001
        strict=True,
    )
)
_SIGNS = {sign: letter for letter, signs in _LOOKS_LIKE.items() for sign in signs}
_SIGNS |= {"l": "i", "1": "i", "|": "i"}  # nobody can tell these apart
_SINGLES = [chr(code) for code in (*range(ord("a"), ord("z") + 1), *range(0x0621, 0x064B))]
_PAIRS = [letter * 2 for letter in _SINGLES]
_MARKS = r"[\p{M}\x{640}\x{200b}-\x{200f}]+"
_GAP = r"[\s._*~-]{1,2}"
_ARABIC_PREFIX, _ARABIC_ENDING = "(?:و|ف|ب|ال|وال|يا )?", r"\p{L}*"


def moderate(
    settings: ModerationSettings,
    *,
    accepted: Collection[str] = (),
    is_bad: Callable[[pl.Series], pl.Series] | None = None,
) -> Callable[[pl.DataFrame], Outcome]:
    """The step that holds back what a list or the classifier finds fault with.

    `accepted`: interactions that a reviewer has let pass. `is_bad`: chance of each text to be
    rejected by a reviewer, where a classifier was fitted.
    """

    def step(frame: pl.DataFrame) -> Outcome:
        if not settings.enabled or frame.is_empty():
            return Outcome(frame)
        text = pl.concat_str([words_of_request(), "target"], separator="\n", ignore_nulls=True)
        reasons = frame.select("id", text=text)
        reasons = reasons.with_columns(word=found_words(reasons["text"], settings))
        reason: pl.Expr = pl.when(pl.col("word").is_not_null()).then(
            pl.format("the word '{}'", "word")
        )
        if is_bad is not None:
            reasons = reasons.with_columns(chance=is_bad(reasons["text"]))
            like_rejected = pl.format("like what was rejected ({})", pl.col("chance").round(2))
            bad = pl.col("chance") >= settings.classifier_threshold
            reason = pl.coalesce(reason, pl.when(bad).then(like_rejected))
        held = reasons.select("id", reason=reason).drop_nulls("reason")
        held = held.filter(~pl.col("id").is_in(list(accepted)))
        kept = frame.join(held, on="id", how="anti", maintain_order="left")
        why = dict(zip(held["id"], (f"{KIND}: {text}" for text in held["reason"]), strict=True))
        return Outcome(kept, {"held for a reviewer": len(why)}, why)

    return step


def found_words(texts: pl.Series, settings: ModerationSettings) -> pl.Series:
    """The first listed word of each text, with its letters made plain; null where there is none.

    The expression for all disguises is slow, so that it sees only texts that hold the letters
    of a listed word in their order, whatever stands between them.
    """
    lists = _lists(settings.words_file)
    folded = _folded(texts)
    squeezed = folded.str.replace_many(list(_SIGNS), list(_SIGNS.values()))
    squeezed = _collapsed(squeezed.str.replace_all(r"[^\p{L}\n]+", ""))
    starred = folded.str.contains(r"\p{L}[*#]+\p{L}")
    places = (squeezed.str.contains_any(lists.stems) | starred).arg_true()
    found = folded.gather(places).str.replace_all(lists.allowed, " ").str.extract(lists.words, 1)
    nothing = pl.repeat(None, len(texts), dtype=pl.String, eager=True)
    return nothing.scatter(places, found).rename("word")


def _folded(texts: pl.Series) -> pl.Series:
    """Small letters, none of them accented or borrowed from another script."""
    places = texts.str.contains(r"[^\x00-\x7f]").fill_null(False).arg_true()
    odd = texts.gather(places).str.normalize("NFKD").str.replace_all(_MARKS, "")
    odd = odd.str.to_lowercase().str.replace_many(list(_SAME_LETTER), list(_SAME_LETTER.values()))
    return texts.str.to_lowercase().scatter(places, odd)


def _collapsed(texts: pl.Series) -> pl.Series:
    """Each run of one letter (of up to eight) as one."""
    for _ in range(3):
        texts = texts.str.replace_many(_PAIRS, _SINGLES)
    return texts


class _Lists(NamedTuple):
    words: str
    allowed: str
    stems: list[str]


@lru_cache(maxsize=4)
def _lists(words_file: str | None) -> _Lists:
    lists = files("flows.curation") / "words"
    words = [*_lines((lists / "en.txt").read_text("utf-8"))]
    words += _lines((lists / "ar.txt").read_text("utf-8"))
    if words_file is not None:
        try:
            words += _lines(Path(words_file).read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"cannot read curation.moderation.words_file {words_file}: {error}"
            ) from error
    allowed = "|".join(_lines((lists / "allowed.txt").read_text("utf-8")))
    found = "|".join(_disguised(word) for word in words)
    bare = pl.Series([re.sub(r"[^\w]|_", "", _plain(word)).replace("l", "i") for word in words])
    return _Lists(
        words=rf"(?:^|[^\p{{L}}\p{{N}}_])({found})(?:$|[^\p{{L}}\p{{N}}_])",
        allowed=rf"\b(?:{allowed})\b",
        stems=_collapsed(bare).to_list(),
    )


def _lines(text: str) -> list[str]:
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _disguised(word: str) -> str:
    """An expression for a listed word in all its disguises."""
    stem, any_ending = _plain(word.removesuffix("*")), word.endswith("*")
    letters = [_letter(letter) for letter in stem]
    if any("\u0600" <= letter <= "\u06ff" for letter in stem):
        ending = _ARABIC_ENDING if any_ending else ""
        return _ARABIC_PREFIX + "".join(letters) + ending
    ending = r"\p{L}*" if any_ending else "s?"
    shapes = ["".join(letters) + ending]
    if " " not in stem and len(stem) >= 4:
        shapes += [_GAP.join(letters), _starred(letters) + ending]
    return "|".join(shapes)


def _plain(word: str) -> str:
    bare = re.sub(r"[\u064b-\u0652\u0640]", "", unicodedata.normalize("NFKD", word))
    letters = (letter for letter in bare.lower() if not unicodedata.combining(letter))
    return "".join(_SAME_LETTER.get(letter, letter) for letter in letters)


def _letter(letter: str) -> str:
    if letter == " ":
        return r"\s+"
    if not letter.isalnum():
        return rf"{re.escape(letter)}?"
    signs = "".join(re.escape(sign) for sign in _LOOKS_LIKE.get(letter, ""))
    return f"[{letter}{signs}]+" if signs else f"{letter}+"


def _starred(letters: list[str]) -> str:
    """The word with letters inside it starred out."""
    inner = "".join(f"(?:{letter}|[*#])" for letter in letters[1:-1])
    return letters[0] + inner + letters[-1]
