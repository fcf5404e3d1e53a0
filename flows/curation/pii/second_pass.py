"""The second look, by libraries: phone numbers of all countries, national ids with their checks.

It is some hundred times slower than the patterns, and sees only what still looks suspicious.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from flows.curation.pii import checks
from flows.curation.pii.patterns import Span, Taken
from registry.settings_curation import PiiSettings

if TYPE_CHECKING:
    from presidio_analyzer import EntityRecognizer

MIN_SCORE = 0.5
"""What presidio says of a match that passed its check, or of a pattern in its context."""
RECOGNIZERS = (
    "AuTfnRecognizer",
    "DeTaxIdRecognizer",
    "EsNieRecognizer",
    "EsNifRecognizer",
    "FiPersonalIdentityCodeRecognizer",
    "InAadhaarRecognizer",
    "InPanRecognizer",
    "ItFiscalCodeRecognizer",
    "KrRrnRecognizer",
    "NhsRecognizer",
    "PlPeselRecognizer",
    "SePersonnummerRecognizer",
    "SgFinRecognizer",
    "TrNationalIdRecognizer",
    "UkNinoRecognizer",
    "UsSsnRecognizer",
)
_PHONE_LIKE = re.compile(r"(?<![\w.])(?:\+|00)?\(?\d(?:[ ()./\u2010-\u2015-]{0,3}\d){6,14}(?!\w)")
_FORMATTED_ID = re.compile(
    r"\b(?:\d{3}[- ]\d{2}[- ]\d{4}|[A-Z]{2} ?\d{2} ?\d{2} ?\d{2} ?[A-Z]|[XYZ]?\d{7,8}-?[A-Z]"
    r"|[A-Z]{5}\d{4}[A-Z]|[A-Z]{6}\d{2}[A-Z]\d{2}[A-Z]\d{3}[A-Z]|[STFGM]\d{7}[A-Z]"
    r"|\d{6}[-+A]\d{3}[0-9A-Y]|\d{6}-\d{4}|\d{6}-\d{7})\b"
)
_PHONE_CONTEXT = re.compile(
    r"\b(?:call|phone|telephone|mobile|whats ?app|tel|cell|fax|sms|text me|reach|contact|dial)\b"
    r"|هاتف|جوال|موبايل|واتس|اتصل|رقمي|تليفون|تلفون",
    re.IGNORECASE,
)
_ID_CONTEXT = re.compile(
    r"\bssn\b|social security|tax(?:payer)? (?:id|number)|\bid\b|identity|identification|national"
    r"|passport|insurance|\bnhs\b|aadhaar|pesel|\bdni\b|\bnie\b|\bnif\b|steuer|\bni number"
    r"|personnummer|هوية|الهوية",
    re.IGNORECASE,
)
_CONTEXT_CHARS = 48
_PART_CHARS = 2000
_MIN_PHONE_CHARS = 6
_LAST_GROUP = re.compile(r"[ ()./\u2010-\u2015-]+\d+$")
_DATE = (
    r"(?:(?:19|20)\d\d[-./](?:0?[1-9]|1[0-2])[-./](?:0?[1-9]|[12]\d|3[01])"
    r"|(?:0?[1-9]|[12]\d|3[01])[-./](?:0?[1-9]|[12]\d|3[01])[-./](?:19|20)\d\d)"
)
_DATES = re.compile(
    rf"(?<![\w+./-])(?<![\d)] ){_DATE}(?:[ /\u2010-\u2015-]{{1,3}}{_DATE})*(?!\w|[-./]\d)"
)
_ISBN = re.compile(r"(?<![\w-])(?:97[89][- ])?\d{1,5}[- ]\d{1,7}[- ]\d{1,7}[- ][\dXx](?![\w-])")
_GROUPS = re.compile(r"\d{2}[ ()-]+\d|\d[ ()-]+\d{2}")
_LONG_NUMBER = re.compile(r"\d(?:[ -]?\d){7}")


def find(text: str, settings: PiiSettings, taken: Taken) -> None:
    """Take phone numbers and national ids in `text` (`plain`)."""
    for span in (*_ids(text), *_phones(text, settings.phone_regions)):
        taken.take(*span)


def _phones(text: str, regions: Sequence[str]) -> list[Span]:
    text = _ISBN.sub(_blanked_book, _DATES.sub(_blank, text))
    found: list[Span] = []
    for match in _PHONE_LIKE.finditer(text):
        number, end = match.group(), found[-1].end if found else 0
        if number.startswith(("+", "00")):
            length = _valid_length(number, (None,))
        elif _is_meant(text, match.start(), number, end):
            length = _valid_length(number, regions)
        else:
            continue
        if length:
            found.append(Span(match.start(), match.start() + length, "PHONE"))
    return found


def _blank(match: re.Match[str]) -> str:
    return "_" * len(match.group())


def _blanked_book(match: re.Match[str]) -> str:
    return _blank(match) if checks.is_isbn(match.group()) else match.group()


def _valid_length(number: str, regions: Sequence[str | None]) -> int:
    """How much of the beginning of `number`, group by group from its end, is a phone number."""
    import phonenumbers

    while len(number) > _MIN_PHONE_CHARS:
        for region in regions:
            shown = f"+{number[2:]}" if number.startswith("00") and region is None else number
            try:
                found = phonenumbers.parse(shown, region)
                # Numbering plans change: who writes a country's code means a phone number.
                is_one = region is None and phonenumbers.is_possible_number(found)
                if is_one or phonenumbers.is_valid_number(found):
                    return len(number)
            except phonenumbers.NumberParseException:
                continue
        shorter = _LAST_GROUP.sub("", number)
        if shorter == number:
            break
        number = shorter
    return 0


def _is_meant(text: str, start: int, number: str, end: int) -> bool:
    """Whether a national number is one: written in groups, or named as a phone number.

    `end`: of the number before. What goes on after a hyphen is a part of something longer.
    """
    if start - 1 > end and text[start - 1] == "-" and text[start - 2].isdigit():
        return False
    if number[0] in "0(" and _GROUPS.search(number) is not None:
        return True
    return _PHONE_CONTEXT.search(text[max(0, start - _CONTEXT_CHARS) : start]) is not None


def _ids(text: str) -> list[Span]:
    if _FORMATTED_ID.search(text) is None and (
        _LONG_NUMBER.search(text) is None or _ID_CONTEXT.search(text) is None
    ):
        return []
    found = []
    for start in range(0, len(text), _PART_CHARS):
        for span, score in _results(text, start):
            before = text[max(0, span.start - _CONTEXT_CHARS) : span.start]
            named = _ID_CONTEXT.search(before) is not None
            if score >= MIN_SCORE and (named or not text[span.start : span.end].isdigit()):
                found.append(span)
    return found


def _results(text: str, start: int) -> Iterator[tuple[Span, float]]:
    """What presidio finds that begins in the part at `start`, and how sure it is.

    It compares all that it finds with each other: in a long text, that takes long. A pattern
    recognizer asks nothing of a language model, so that it is given none.
    """
    first = max(0, start - _CONTEXT_CHARS)
    part = text[first : start + _PART_CHARS + _CONTEXT_CHARS]
    for recognizer in _recognizers():
        found: Any = recognizer
        for result in found.analyze(part, recognizer.supported_entities, None) or []:
            if 0 <= first + result.start - start < _PART_CHARS:
                yield Span(first + result.start, first + result.end, "ID"), result.score


@lru_cache(maxsize=1)
def _recognizers() -> tuple[EntityRecognizer, ...]:
    with _absent("torch", "transformers", "stanza"):
        from presidio_analyzer import predefined_recognizers

    return tuple(getattr(predefined_recognizers, name)() for name in RECOGNIZERS)


@contextmanager
def _absent(*names: str) -> Iterator[None]:
    """Imports inside find none of these packages, unless they are loaded already.

    presidio loads them for recognizers that need a model, which ours do not: five seconds and
    320 MiB.
    """
    missing = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(missing))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in missing:
            del sys.modules[name]
