"""Tokens to text while they come: no half characters, and never a part of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from serving.jobs import TokenLogprob

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """The text of one answer; what has been released is never taken back."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str] = ()) -> None:
        """`decode` turns token ids into text."""
        self._decode = decode
        self._stops = tuple(stop for stop in stops if stop)
        self._tokens: list[int] = []
        # Decoding depends on what stands before: a window of tokens is decoded each time,
        # of which those before `_read` are known already.
        self._start = 0
        self._read = 0
        self._known = ""
        self._text = ""
        self._released = 0
        self._pending: list[tuple[int, TokenLogprob]] = []
        self.stopped = False
        """Whether a stop string has ended the answer."""

    @property
    def text(self) -> str:
        """What has been released so far."""
        return self._text[: self._released]

    def push(self, token: int) -> None:
        """Take the next token."""
        self._tokens.append(token)
        window = self._decode(self._tokens[self._start :])
        if len(window) > len(self._known) and not window.endswith(_INCOMPLETE):
            self._append(window[len(self._known) :])
            self._start, self._read = self._read, len(self._tokens)
            self._known = self._decode(self._tokens[self._start : self._read])

    def note(self, logprob: TokenLogprob) -> None:
        """What is to be told of the token that was just pushed, once its text is released."""
        if not self.stopped:
            self._pending.append((len(self._text), logprob))

    def finish(self) -> None:
        """Take what was held back: no more tokens come."""
        if not self.stopped:
            window = self._decode(self._tokens[self._start :])
            self._append(window[len(self._known) :])

    def release(self, *, everything: bool = False) -> tuple[str, tuple[TokenLogprob, ...]]:
        """Text that is certain now, and its tokens; `everything` at the end."""
        end = len(self._text) if everything else len(self._text) - self._held_back()
        piece = self._text[self._released : end]
        self._released = max(self._released, end)
        ready = tuple(logprob for place, logprob in self._pending if place <= end)
        self._pending = [pair for pair in self._pending if pair[0] > end]
        return piece, ready

    def _append(self, more: str) -> None:
        searched = len(self._text)
        self._text += more
        hits = [
            place
            for stop in self._stops
            if (place := self._text.find(stop, max(0, searched - len(stop) + 1))) >= 0
        ]
        if hits:
            self._text = self._text[: min(hits)]
            self.stopped = True

    def _held_back(self) -> int:
        """Characters at the end that may turn out to begin a stop string."""
        if self.stopped:
            return 0
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for count in range(min(longest, len(self._text) - self._released), 0, -1):
            if any(stop.startswith(self._text[-count:]) for stop in self._stops):
                return count
        return 0
