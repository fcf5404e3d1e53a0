"""Takes control tokens out of what people write: nobody plays another role by spelling them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any


class ControlTokens:
    """The tokens of one tokenizer that steer a model."""

    def __init__(self, tokens: Iterable[str]) -> None:
        # Of two that begin alike, the longer.
        known = sorted({token for token in tokens if token}, key=len, reverse=True)
        self._longest = len(known[0]) if known else 0
        self._find = re.compile("|".join(map(re.escape, known)) or r"(?!)").search

    @classmethod
    def of(cls, tokenizer: Any) -> ControlTokens:
        """All that `tokenizer` takes for one, also those that have no name in it."""
        added = tokenizer.added_tokens_decoder.values()
        return cls([*tokenizer.all_special_tokens, *(one.content for one in added if one.special)])

    def removed_from(self, text: str) -> str:
        """`text` without them, and without those that taking one out forms.

        Takes time in proportion to the text, whatever it spells.
        """
        kept: list[str] = []
        """One character each; holds no token."""
        place = 0
        while True:
            tail = "".join(kept[1 - self._longest :]) if self._longest > 1 else ""
            across = self._find(tail + text[place : place + self._longest])
            if across is not None and across.start() < len(tail):
                del kept[len(kept) - len(tail) + across.start() :]
                place += across.end() - len(tail)
                continue
            found = self._find(text, place)
            kept.extend(text[place : None if found is None else found.start()])
            if found is None:
                return "".join(kept)
            place = found.end()
