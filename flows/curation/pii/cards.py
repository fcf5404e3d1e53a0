"""Payment cards among digits: groups that are written as a card's are, by an issuer, with Luhn."""

from __future__ import annotations

import re
from collections.abc import Iterator

from flows.curation.pii.checks import luhn

BETWEEN = r"[ \t./\u2010-\u2015\u2212-]"
"""What people put between the groups of a number; all spaces are one in a plain text."""
RUN = re.compile(rf"(?<!\d)\d(?:{BETWEEN}{{0,3}}\d){{12,}}")
"""Digits in groups, a card's or more than that: an expiry or an amount may stand beside it."""
MAX_DIGITS = 19
_GROUP = re.compile(r"\d+")
_CUSTOMARY = re.compile(r"(?:4,){3}[1-4]|(?:4,){4}[1-3]|4,[56],[456]|8,8|6,13|1[3-9]")
"""Lengths of groups that speak for a card, whatever stands beside them."""
_SIMPLE = re.compile(r"\d(?:[ -]?\d)*")
_ISSUED = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"  # Visa
    r"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"  # Mastercard
    r"|220[0-4]\d{12,15}"  # Mir
    r"|3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11,16}|35\d{14,17}"  # American Express, Diners, JCB
    r"|(?:5[06-8]|6\d)\d{11,17}"  # Maestro, Discover, UnionPay, RuPay
)
"""First digits and lengths that issuers have (ISO/IEC 7812-1)."""


def is_card(digits: str) -> bool:
    """Whether this is the number of a payment card."""
    return _ISSUED.fullmatch(digits) is not None and len(set(digits)) > 1 and luhn(digits)


def cards(match: re.Match[str]) -> Iterator[tuple[int, int]]:
    """Where in a `RUN` there are cards: whole groups, of several readings the longest.

    Each group begins at most seven readings, so that long lists of numbers take no long time.
    """
    text, groups = (
        match.string,
        [found.span() for found in _GROUP.finditer(match.string, *match.span())],
    )
    first = 0
    while first < len(groups):
        last = _end(text, groups, first)
        if last is None:
            first += 1
        else:
            yield groups[first][0], groups[last][1]
            first = last + 1


def _end(text: str, groups: list[tuple[int, int]], first: int) -> int | None:
    """The last group of the longest card that begins with group `first`."""
    longest: int | None = None
    digits, sizes = "", list[str]()
    for place in range(first, len(groups)):
        start, end = groups[place]
        digits += text[start : min(end, start + MAX_DIGITS + 1)]
        sizes.append(str(end - start))
        if len(digits) > MAX_DIGITS:
            break
        is_whole = place - first == len(groups) - 1 and _SIMPLE.fullmatch(text, groups[0][0], end)
        if (is_whole or _CUSTOMARY.fullmatch(",".join(sizes))) and is_card(digits):
            longest = place
    return None if longest == first and _is_fraction(text, groups[first][0]) else longest


def _is_fraction(text: str, start: int) -> bool:
    """Whether the digits at `start` stand behind a decimal point."""
    return re.search(r"(?:\d|\s|\A)\.\Z", text[max(0, start - 2) : start]) is not None
