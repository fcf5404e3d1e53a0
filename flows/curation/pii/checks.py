"""The arithmetic that tells a number of some kind from any other number."""

from __future__ import annotations

import re
from datetime import date
from ipaddress import IPv4Address, IPv6Address, ip_address

IBAN_LENGTHS = {
    **dict.fromkeys(["NO"], 15),
    **dict.fromkeys(["BE"], 16),
    **dict.fromkeys(["DK", "FI", "FO", "GL", "NL"], 18),
    **dict.fromkeys(["MK", "SI"], 19),
    **dict.fromkeys(["AT", "BA", "EE", "KZ", "LT", "LU", "XK"], 20),
    **dict.fromkeys(["CH", "CR", "HR", "LI", "LV"], 21),
    **dict.fromkeys(["BG", "BH", "DE", "GB", "GE", "IE", "ME", "RS"], 22),
    **dict.fromkeys(["AE", "GI", "IL", "IQ", "TL"], 23),
    **dict.fromkeys(["AD", "CZ", "ES", "MD", "PK", "RO", "SA", "SE", "SK", "TN", "VG"], 24),
    **dict.fromkeys(["PT", "ST"], 25),
    **dict.fromkeys(["IS", "TR"], 26),
    **dict.fromkeys(["FR", "GR", "IT", "MC", "MR", "SM"], 27),
    **dict.fromkeys(["AL", "AZ", "CY", "DO", "GT", "HU", "LB", "PL"], 28),
    **dict.fromkeys(["BR", "EG", "PS", "QA", "UA"], 29),
    **dict.fromkeys(["JO", "KW", "MU"], 30),
    **dict.fromkeys(["MT", "SC"], 31),
    **dict.fromkeys(["LC"], 32),
}
"""Characters of an IBAN by country (SWIFT IBAN registry)."""
_TELLING_NOTHING = (IPv4Address("0.0.0.0"), IPv4Address("127.0.0.1"), IPv6Address("::1"))
_MASK = re.compile(r"255\.255\.")


def digits_of(text: str) -> str:
    """Only the digits of `text`."""
    return "".join(letter for letter in text if letter.isdigit())


def luhn(digits: str) -> bool:
    """Whether the check digit is right (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, letter in enumerate(reversed(digits)):
        value = int(letter) * (1 + place % 2)
        total += value - 9 * (value > 9)
    return total % 10 == 0


def is_iban(text: str) -> bool:
    """Whether the check digits of an IBAN are right (ISO 13616: mod 97)."""
    letters = "".join(letter for letter in text if letter.isalnum()).upper()
    turned = letters[4:] + letters[:4]
    return int("".join(str(int(letter, 36)) for letter in turned)) % 97 == 1


def is_isbn(text: str) -> bool:
    """Whether this is a book's number, of ten digits or thirteen (ISO 2108)."""
    letters = "".join(letter for letter in text if letter.isalnum()).upper()
    if len(letters) == 13 and letters.isdigit():
        return (
            sum(int(letter) * (1, 3)[place % 2] for place, letter in enumerate(letters)) % 10 == 0
        )
    values = [10 if letter == "X" else int(letter) for letter in letters]
    return len(values) == 10 and sum((10 - p) * value for p, value in enumerate(values)) % 11 == 0


def is_address(text: str) -> bool:
    """Whether this is an IP address that belongs to somebody.

    The local host, net masks and names with two colons (`std::vector`) do not.
    """
    try:
        found = ip_address(text)
    except ValueError:
        return False
    if found in _TELLING_NOTHING or _MASK.match(text):
        return False
    if isinstance(found, IPv4Address):
        return True
    groups = [group for group in text.split(":") if group]
    return any(letter.isdigit() for letter in text) and (
        len(groups) >= 3 or (len(groups) == 2 and len(groups[0]) == 4)
    )


def is_saudi_id(digits: str) -> bool:
    """A Saudi national id (1…) or iqama (2…): ten digits, Luhn."""
    return len(digits) == 10 and digits[0] in "12" and luhn(digits)


def is_emirates_id(digits: str) -> bool:
    """An Emirates id: 784, year of birth, seven digits, Luhn."""
    return len(digits) == 15 and digits.startswith("784") and luhn(digits)


def is_egyptian_id(digits: str) -> bool:
    """An Egyptian national id: century, date of birth, governorate, five digits."""
    if len(digits) != 14 or digits[0] not in "23" or not 1 <= int(digits[7:9]) <= 88:
        return False
    year = (1900 if digits[0] == "2" else 2000) + int(digits[1:3])
    try:
        date(year, int(digits[3:5]), int(digits[5:7]))
    except ValueError:
        return False
    return True
