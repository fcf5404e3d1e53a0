"""Text while it comes: whole characters, and never a part of a stop string."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from serving.engine.text import TextStream
from serving.jobs import TokenLogprob


def decode(tokens: Sequence[int]) -> str:
    """A byte-level tokenizer, as most models have."""
    return bytes(tokens).decode(errors="replace")


texts = st.text("abcé🙂 ", max_size=25)


@settings(max_examples=60, deadline=None)
@given(texts, st.lists(st.text("abcé🙂", min_size=1, max_size=4), max_size=3))
def test_what_is_released_ends_before_the_first_stop_string(text: str, stops: list[str]) -> None:
    stream = TextStream(decode, stops)
    # The one that is complete first ends the answer.
    places = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    expected = text[: min(places)[1]] if places else text
    released = ""
    for token in text.encode():
        stream.push(token)
        stream.note(TokenLogprob(chr(token), -1.0))
        released += stream.release()[0]
        assert expected.startswith(released)
        if stream.stopped:
            break
    stream.finish()
    released += stream.release(everything=True)[0]
    assert released == stream.text == expected
    assert stream.stopped == bool(places)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 255), max_size=20))
def test_bytes_that_are_no_text_are_shown_as_such_at_last(tokens: list[int]) -> None:
    stream = TextStream(decode)
    for token in tokens:
        stream.push(token)
        stream.release()
    stream.finish()
    stream.release(everything=True)
    assert stream.text == decode(tokens)


def test_logprobs_come_with_their_text_and_not_beyond_a_stop() -> None:
    stream = TextStream(decode, ["xyz"])
    released = []
    for token in b"abxyz":
        stream.push(token)
        stream.note(TokenLogprob(chr(token), -1.0))
        released.append(stream.release())
    assert [text for text, _ in released] == ["a", "b", "", "", ""]
    assert [entry.token for _, entries in released for entry in entries] == ["a", "b"]
