"""Patterns of personal data. All work on text whose digits are ASCII (`plain`)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import NamedTuple

from flows.curation.pii import cards, checks


class Span(NamedTuple):
    """A piece of a text, and what it is."""

    start: int
    end: int
    kind: str


def _whole(match: re.Match[str]) -> Iterable[tuple[int, int]]:
    return [match.span(1 if match.re.groups else 0)]


class Pattern(NamedTuple):
    """An expression, and which pieces of a match are such data: the whole of it, or its group."""

    kind: str
    expression: re.Pattern[str]
    pieces: Callable[[re.Match[str]], Iterable[tuple[int, int]]] = _whole


class Taken:
    """The pieces of a text that are spoken for."""

    def __init__(self, length: int) -> None:
        """Of a text of so many characters, all of them free."""
        self.spans: list[Span] = []
        self._mask = bytearray(length)

    def take(self, start: int, end: int, kind: str) -> None:
        """Take a piece, unless a part of it is taken."""
        if self._mask.find(1, start, end) < 0:
            self._mask[start:end] = b"\1" * (end - start)
            self.spans.append(Span(start, end, kind))


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
    r"AIza[0-9A-Za-z_-]{35}",
    r"ya29\.[0-9A-Za-z_-]{20,}",
    r"hf_[A-Za-z0-9]{30,}",
    r"npm_[A-Za-z0-9]{36}",
    r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",
    r"eyJ[A-Za-z0-9_-]{8,2000}\.eyJ[A-Za-z0-9_-]{8,8000}\.[A-Za-z0-9_-]{5,}",
)
_PREFIXED_KEY = r"(?:sk|pk|rk)[-_](?:live|test|proj|ant|or)?[-_]?[A-Za-z0-9_-]{20,}"
_UUID = re.compile(r"(?i)(?<![0-9a-f])[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}(?![0-9a-f])")
_NAMED_SECRET = (
    r"(?:api[_ -]?key|secret(?:[_ -]?key)?|access[_ -]?key|access[_ -]?token|auth[_ -]?token"
    r"|client[_ -]?secret|password|passwd|pwd|كلمة (?:المرور|السر))"
    r"[\"']?\s*(?:[:=]|\bis\b|هي)\s*[\"']?([^\s\"',;]{8,200})"
)
_APART = f"{cards.BETWEEN}{{0,2}}"
_IBANS = "|".join(
    rf"(?:{'|'.join(code for code, other in checks.IBAN_LENGTHS.items() if other == length)})"
    rf"{_APART}\d{{2}}(?:{_APART}[A-Z0-9]){{{length - 4}}}"
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


def _is_key(match: re.Match[str]) -> bool:
    """Whether what follows the prefix is drawn: names of things have it in front of them too."""
    tail = match.group()[3:]
    if _UUID.search(tail):
        return True
    drawn = max(re.findall(r"[A-Za-z0-9]+", tail), key=len, default="")
    capitals = sum(letter.isupper() for letter in drawn)
    return len(drawn) >= 10 and (
        _is_random(drawn) or len(drawn) <= 4 * min(capitals, len(drawn) - capitals)
    )


def _if(holds: Callable[[re.Match[str]], bool]) -> Callable[..., Iterable[tuple[int, int]]]:
    return lambda match: _whole(match) if holds(match) else ()


def _checked(is_right: Callable[[str], bool]) -> Callable[..., Iterable[tuple[int, int]]]:
    return _if(lambda match: is_right(match.group()))


def _id(
    is_right: Callable[[str], bool], *, context: bool
) -> Callable[..., Iterable[tuple[int, int]]]:
    def holds(match: re.Match[str]) -> bool:
        if not is_right(checks.digits_of(match.group())):
            return False
        before = match.string[max(0, match.start() - _CONTEXT_CHARS) : match.start()]
        return not context or _ID_CONTEXT.search(before) is not None

    return _if(holds)


def _is_no_version(match: re.Match[str]) -> bool:
    before = match.string[max(0, match.start() - 12) : match.start()].lower()
    version = re.search(r"\b(?:version|release|v|ver\.?)\s*$", before)
    return version is None and checks.is_address(match.group())


_LOCAL = re.compile(r"[\w.+%'-]+")
_SPACED_LOCAL = re.compile(r"(?:[^\W\u0e00-\u109f\u1780-\u17ff\u3040-\u9fff]|[.+%'-])+")
"""Without the letters of scripts that put no space before an address."""
_LOCAL_CHARS = 256
_EMAIL_HOST = re.compile(
    r"@(?:\w[\w-]{0,62}\.){1,8}"
    r"(?:xn--[a-z0-9-]{1,59}|[a-z]{2,63}(?![a-z0-9])|(?![a-z])[^\W\d_]{2,63})",
    re.IGNORECASE,
)


def _address(match: re.Match[str]) -> Iterable[tuple[int, int]]:
    """The host with what stands before its @, read backwards."""
    before = match.string[max(0, match.start() - _LOCAL_CHARS) : match.start()][::-1]
    local = _SPACED_LOCAL.match(before) or _LOCAL.match(before)
    return [(match.start() - local.end(), match.end())] if local else ()


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
    Pattern("SECRET", re.compile(rf"(?<![A-Za-z0-9]){_PREFIXED_KEY}"), _if(_is_key)),
    Pattern("SECRET", re.compile(r"(?<=[Bb]earer )[A-Za-z0-9._~+/-]{20,}=*")),
    Pattern(
        "SECRET", re.compile(_NAMED_SECRET, re.I), _if(lambda match: _is_random(match.group(1)))
    ),
    Pattern("EMAIL", _EMAIL_HOST, _address),
    Pattern(
        "IBAN",
        re.compile(rf"(?<![A-Za-z0-9])(?:{_IBANS})(?![A-Za-z0-9])", re.I | re.A),
        _checked(checks.is_iban),
    ),
    Pattern("CARD", cards.RUN, cards.cards),
    Pattern(
        "ID",
        re.compile(r"(?<!\d)784[- ]?\d{4}[- ]?\d{7}[- ]?\d(?!\d)"),
        _id(checks.is_emirates_id, context=False),
    ),
    Pattern(
        "ID", re.compile(r"(?<![\d.])[23]\d{13}(?!\d)"), _id(checks.is_egyptian_id, context=False)
    ),
    Pattern("ID", re.compile(r"(?<![\d.+])[12]\d{9}(?!\d)"), _id(checks.is_saudi_id, context=True)),
    Pattern(
        "IP", re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d]|\.\d)"), _if(_is_no_version)
    ),
    Pattern(
        "IP",
        re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}(?:[0-9A-Fa-f]{1,4}|:)?(?![\w:])"),
        _checked(checks.is_address),
    ),
)
"""In the order in which they take their piece of the text."""


def plain(text: str) -> str:
    """The text with ASCII in the place of other forms of it, every character where it was.

    Arabic-Indic, Persian, full-width and all other decimal digits; full-width and mathematical
    letters; the full-width plus, @ and full stop; all spaces.
    """
    if text.isascii():
        return text
    return text.translate(_PLAIN)


class _Plain(dict[int, str]):
    def __missing__(self, code: int) -> str:
        letter = chr(code)
        value = unicodedata.decimal(letter, None)
        if value is not None:
            self[code] = str(value)
        elif unicodedata.category(letter) == "Zs":
            self[code] = " "
        elif letter.isalpha() and (0xFF21 <= code <= 0xFF5A or 0x1D400 <= code <= 0x1D7FF):
            self[code] = unicodedata.normalize("NFKC", letter)
        else:
            self[code] = letter
        return self[code]


_PLAIN = _Plain({ord("＋"): "+", ord("＠"): "@", ord("．"): "."})  # noqa: RUF001


def find(text: str, taken: Taken) -> None:
    """Take personal data in `text`, which is `plain`, in the order of `PATTERNS`."""
    for kind, expression, pieces in PATTERNS:
        for match in expression.finditer(text):
            for start, end in pieces(match):
                taken.take(start, end, kind)
