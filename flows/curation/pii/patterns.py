"""Patterns of personal data. All work on text whose digits are ASCII (`plain`)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import NamedTuple

from flows.curation.pii import checks


class Span(NamedTuple):
    """A piece of a text, and what it is."""

    start: int
    end: int
    kind: str


class Pattern(NamedTuple):
    """An expression, and what else must hold of a match."""

    kind: str
    expression: re.Pattern[str]
    holds: Callable[[re.Match[str]], bool] = lambda _: True


_ID_CONTEXT = re.compile(
    r"\b(?:id|iqama|national|identity|identification|passport|resident|civil)\b"
    r"|هوية|الهوية|هويتي|إقامة|اقامة|الإقامة|الاقامة|القومي|المدني|الوطني",
    re.IGNORECASE,
)
_CONTEXT_CHARS = 48
_PREFIXED_TOKENS = (
    r"(?:AKIA|ASIA)[0-9A-Z]{16}",
    r"gh[pousr]_[A-Za-z0-9]{30,}",
    r"github_pat_[A-Za-z0-9_]{20,}",
    r"glpat-[A-Za-z0-9_-]{20,}",
    r"xox[abeoprs]-[A-Za-z0-9-]{10,}",
    r"(?:sk|pk|rk)[-_](?:live|test|proj|ant|or)?[-_]?[A-Za-z0-9_-]{20,}",
    r"AIza[0-9A-Za-z_-]{35}",
    r"ya29\.[0-9A-Za-z_-]{20,}",
    r"hf_[A-Za-z0-9]{30,}",
    r"npm_[A-Za-z0-9]{36}",
    r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",
    r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{5,}",
)
_NAMED_SECRET = (
    r"(?:api[_ -]?key|secret(?:[_ -]?key)?|access[_ -]?key|access[_ -]?token|auth[_ -]?token"
    r"|client[_ -]?secret|password|passwd|pwd|كلمة (?:المرور|السر))"
    r"[\"']?\s*(?:[:=]|\bis\b|هي)\s*[\"']?([^\s\"',;]{8,200})"
)
_IBANS = "|".join(
    rf"(?:{'|'.join(code for code, other in checks.IBAN_LENGTHS.items() if other == length)})"
    rf"[ -]?\d{{2}}(?:[ -]?[A-Z0-9]){{{length - 4}}}"
    for length in sorted(set(checks.IBAN_LENGTHS.values()))
)


def _is_random(text: str) -> bool:
    """Whether this looks drawn and not written: letters with digits or signs among them."""
    kinds = (
        any(letter.isdigit() for letter in text),
        any(letter.islower() for letter in text),
        any(letter.isupper() for letter in text),
        any(not letter.isalnum() for letter in text),
    )
    return sum(kinds) >= 3 or (len(text) >= 16 and kinds[0] and (kinds[1] or kinds[2]))


def _checked(is_right: Callable[[str], bool]) -> Callable[[re.Match[str]], bool]:
    return lambda match: is_right(match.group())


def _id(is_right: Callable[[str], bool], *, context: bool) -> Callable[[re.Match[str]], bool]:
    def holds(match: re.Match[str]) -> bool:
        if not is_right(checks.digits_of(match.group())):
            return False
        before = match.string[max(0, match.start() - _CONTEXT_CHARS) : match.start()]
        return not context or _ID_CONTEXT.search(before) is not None

    return holds


def _is_no_version(match: re.Match[str]) -> bool:
    before = match.string[max(0, match.start() - 12) : match.start()].lower()
    version = re.search(r"\b(?:version|release|v|ver\.?)\s*$", before)
    return version is None and checks.is_address(match.group())


PATTERNS: tuple[Pattern, ...] = (
    Pattern(
        "SECRET",
        re.compile(
            r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[\s\S]{0,8000}?-----END [A-Z ]{0,30}KEY-----"
        ),
    ),
    Pattern(
        "URL",
        re.compile(
            r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/@:]{1,200}:[^\s/@]{1,200}@[^\s<>\"']{1,500}", re.I
        ),
    ),
    Pattern(
        "URL",
        re.compile(
            r"\bhttps?://[^\s<>\"']{1,500}[?&](?:api_?key|access_token|token|auth|secret|password|sig|signature)"
            r"=[^\s<>\"'&]{6,}[^\s<>\"']{0,300}",
            re.I,
        ),
    ),
    Pattern("SECRET", re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(_PREFIXED_TOKENS)})")),
    Pattern("SECRET", re.compile(r"(?<=[Bb]earer )[A-Za-z0-9._~+/-]{20,}=*")),
    Pattern("SECRET", re.compile(_NAMED_SECRET, re.I), lambda match: _is_random(match.group(1))),
    Pattern(
        "EMAIL",
        re.compile(
            r"(?<![\w.+-])[\w.+%'-]{1,64}@(?:[\w](?:[\w-]{0,62})\.){1,8}[^\W\d_]{2,24}(?![\w-])"
        ),
    ),
    Pattern(
        "IBAN",
        re.compile(rf"(?<![A-Za-z0-9])(?:{_IBANS})(?![A-Za-z0-9])", re.I),
        _checked(checks.is_iban),
    ),
    Pattern("CARD", re.compile(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?!\d)"), _checked(checks.is_card)),
    Pattern(
        "ID",
        re.compile(r"(?<!\d)784[- ]?\d{4}[- ]?\d{7}[- ]?\d(?!\d)"),
        _id(checks.is_emirates_id, context=False),
    ),
    Pattern(
        "ID", re.compile(r"(?<![\d.])[23]\d{13}(?!\d)"), _id(checks.is_egyptian_id, context=False)
    ),
    Pattern("ID", re.compile(r"(?<![\d.+])[12]\d{9}(?!\d)"), _id(checks.is_saudi_id, context=True)),
    Pattern("IP", re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d]|\.\d)"), _is_no_version),
    Pattern(
        "IP",
        re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}(?:[0-9A-Fa-f]{1,4}|:)?(?![\w:])"),
        _checked(checks.is_address),
    ),
)
"""In the order in which they take their piece of the text."""


def plain(text: str) -> str:
    """The text with ASCII digits and signs in the place of others, every character where it was.

    Arabic-Indic, Persian, full-width and all other decimal digits; the full-width plus and @.
    """
    if text.isascii():
        return text
    return text.translate(_PLAIN)


class _Plain(dict[int, str]):
    def __missing__(self, code: int) -> str:
        letter = chr(code)
        value = unicodedata.decimal(letter, None)
        self[code] = letter if value is None else str(value)
        return self[code]


_PLAIN = _Plain({ord("＋"): "+", ord("＠"): "@", ord("．"): ".", 0xA0: " ", 0x202F: " "})  # noqa: RUF001


def find(text: str) -> Iterator[Span]:
    """Personal data in `text`, which is `plain`; what one pattern has taken no other does."""
    taken: list[Span] = []
    for kind, expression, holds in PATTERNS:
        for match in expression.finditer(text):
            start, end = match.span(1) if expression.groups else match.span()
            if not overlaps(taken, start, end) and holds(match):
                taken.append(Span(start, end, kind))
    yield from taken


def overlaps(spans: list[Span], start: int, end: int) -> bool:
    """Whether a piece of text is (partly) taken."""
    return any(start < span.end and span.start < end for span in spans)
