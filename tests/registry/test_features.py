import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from registry.features import COPIED, MAX_CHARS, NUM_HASHED, NUMBERS, Sample, extract

TEXT = st.text(st.characters(), max_size=200)  # lone surrogates and control characters too


@given(TEXT, TEXT, st.none() | TEXT, st.none() | TEXT)
def test_any_text_has_features(text: str, output: str, tool: str, language: str) -> None:
    found = extract(Sample(text, output, tool, language))
    assert found.numbers.shape == (len(NUMBERS),)
    assert np.isfinite(found.numbers).all()
    assert len(set(found.names)) == len(found.names)
    assert ((found.indices >= 0) & (found.indices < NUM_HASHED)).all()


def test_words_that_were_typed_are_not_what_an_answer_is_judged_by() -> None:
    one = extract(Sample("write about sourdough", "Role: baker\nTask: about sourdough"))
    other = extract(Sample("write about rockets", "Role: baker\nTask: about rockets"))
    assert set(one.names) - set(other.names) == set()
    assert f"says “{COPIED} {COPIED}”" in one.names


def test_what_an_answer_leaves_out_is_seen() -> None:
    found = extract(Sample("a mail, mention parking", "Role: expert\nTask: a mail"))
    assert "leaves out “parking”" in found.names
    assert "general: no Tone" in found.names


def test_of_a_long_text_only_the_beginning_counts() -> None:
    start = "word " * (MAX_CHARS // 5)
    one, other = (extract(Sample("x", start + end)) for end in ("", "and more " * 100_000))
    assert one.names == other.names
