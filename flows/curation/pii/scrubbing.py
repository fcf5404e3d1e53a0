"""Replaces personal data by numbered placeholders, the same one for the same value in a sample.

The first pass is one vectorised search over the whole frame for what any kind of personal data
must contain (an @, a run of digits, the beginning of a token …). Only texts that have it are
looked at by the patterns and their checks, and by the libraries. What a placeholder stood for
is kept nowhere. Names of persons follow no pattern: a model that finds them can be plugged in
(`curation.pii.name_finder`).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from flows.curation.frames import Outcome
from flows.curation.pii import patterns, second_pass
from flows.curation.pii.patterns import Taken
from registry.settings_curation import PiiSettings

TEXTS = ("input_text", "messages", "target", "rejected")
"""What a sample is made of."""
NameFinder = Callable[[Sequence[str]], Sequence[Sequence[tuple[int, int, str]]]]

_GIVEN = r"[\s\"'\\nrt]*(?:[:=]|is\b|هي)"
"""What follows the name of a secret; in JSON, quotes and ends of lines are escaped."""
_BETWEEN = r"(?:[\p{Zs}\t().\x{2f}\x{2010}-\x{2015}\x{2212}-]|\\t)"
_TRIGGERS = (
    r"[@\x{ff20}-\x{ff3a}\x{ff41}-\x{ff5a}\x{1d400}-\x{1d7ff}]",
    rf"\d(?:{_BETWEEN}{{0,3}}\d){{6}}",
    r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d",
    r":[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]*\d|::",
    r"-----BEGIN|AKIA|ASIA|gh[pousr]_|github_pat|glpat-|xox[a-z]-|[spr]k[-_]|AIza|ya29|hf_|npm_"
    r"|SG\.|eyJ|[Bb]earer\s",
    r"(?i)[?&](?:api|access_|token|auth|secret|password|sig)",
    rf"(?i)(?:key|secret|token|password|passwd|pwd){_GIVEN}",
    rf"(?:المرور|السر){_GIVEN}",
    rf"[A-Za-z]\s?\d\s?\d{_BETWEEN}{{0,2}}\d|\d{{6}}[-+A]\d{{3}}",
)
"""Apart: together they would be one automaton too large to be fast, fifteen times slower."""


def scrub(
    settings: PiiSettings, *, name_finder: NameFinder | None = None
) -> Callable[[pl.DataFrame], Outcome]:
    """The step: `notes` counts the rows with each kind of personal data."""

    def step(frame: pl.DataFrame) -> Outcome:
        if not settings.enabled or frame.is_empty():
            return Outcome(frame)
        suspicious = frame.select(
            is_suspicious(name).or_(name_finder is not None).alias(name) for name in TEXTS
        )
        places = suspicious.select(pl.any_horizontal(TEXTS)).to_series().arg_true()
        if places.is_empty():
            return Outcome(frame)
        rows, flags = frame.select(TEXTS)[places], suspicious[places]
        names = _names(rows, name_finder)
        scrubbed, notes = [], Counter[str]()
        for number, (row, looked_at) in enumerate(
            zip(rows.iter_rows(), flags.iter_rows(), strict=True)
        ):
            scrubber = Scrubber(settings, names[number] if names else ())
            scrubbed.append(
                tuple(
                    _in_column(scrubber, name, value) if flag else value
                    for name, value, flag in zip(TEXTS, row, looked_at, strict=True)
                )
            )
            notes.update(f"{kind} replaced" for kind in scrubber.kinds)
        changed = pl.DataFrame(
            [list(column) for column in zip(*scrubbed, strict=True)],
            schema=dict.fromkeys(TEXTS, pl.String),
        )
        return Outcome(
            frame.with_columns(
                frame[name].scatter(places, changed[name]).alias(name) for name in TEXTS
            ),
            dict(sorted(notes.items())),
        )

    return step


class Scrubber:
    """Replaces the personal data in the texts of one sample."""

    def __init__(self, settings: PiiSettings, names: Sequence[tuple[str, str]] = ()) -> None:
        """`names`: (text, kind) found by a model."""
        self._settings = settings
        self._names = dict.fromkeys(names)
        self._placeholders: dict[tuple[str, str], str] = {}
        self._numbers: Counter[str] = Counter()

    @property
    def kinds(self) -> list[str]:
        """What was found so far."""
        return sorted(self._numbers)

    def text(self, text: str) -> str:
        """`text` with placeholders."""
        plain = patterns.plain(text)
        taken = Taken(len(plain))
        patterns.find(plain, taken)
        if self._settings.second_pass:
            second_pass.find(plain, self._settings, taken)
        for name, kind in self._names:
            for match in re.finditer(re.escape(name), text):
                taken.take(*match.span(), kind)
        pieces, end = [], 0
        for span in sorted(taken.spans):
            value = plain[span.start : span.end]
            pieces += [text[end : span.start], self._placeholder(span.kind, value)]
            end = span.end
        return "".join([*pieces, text[end:]])

    def json_text(self, text: str) -> str:
        """JSON with placeholders in its strings."""
        found = json.loads(text)
        replaced = self._in_value(found)
        return (
            text if replaced == found else json.dumps(replaced, ensure_ascii=False, sort_keys=True)
        )

    def _in_value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self._in_value(item) for item in value]
        if isinstance(value, dict):
            return {key: self._in_value(item) for key, item in value.items()}
        return value

    def _placeholder(self, kind: str, value: str) -> str:
        # The same number written in groups or without them is the same number.
        key = (
            kind,
            "".join(letter for letter in value.lower() if letter.isalnum() or letter in "@."),
        )
        if key not in self._placeholders:
            self._numbers[kind] += 1
            self._placeholders[key] = f"<{kind}_{self._numbers[kind]}>"
        return self._placeholders[key]


def _in_column(scrubber: Scrubber, name: str, value: str | None) -> str | None:
    if not value:
        return value
    return scrubber.json_text(value) if name == "messages" else scrubber.text(value)


def is_suspicious(column: str) -> pl.Expr:
    """Whether a text, or JSON, has what any kind of personal data must contain."""
    text = pl.col(column).str
    return pl.any_horizontal(text.contains(trigger) for trigger in _TRIGGERS).fill_null(False)


def _names(rows: pl.DataFrame, finder: NameFinder | None) -> list[list[tuple[str, str]]]:
    if finder is None:
        return []
    texts = ["\n".join(value for value in row if value) for row in rows.iter_rows()]
    return [
        [(text[start:end], kind) for start, end, kind in found]
        for text, found in zip(texts, finder(texts), strict=True)
    ]
