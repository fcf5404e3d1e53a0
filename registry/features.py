"""What a fitted quality scorer looks at: names to be hashed, and a few numbers.

Words that the person typed are replaced by a mark before grams are made, so that a scorer
learns how answers are written rather than what they are about. The same code serves at
answer time (numpy alone, well under 1 ms) and for fitting.
"""

import math
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from registry import prompts

FEATURES = "features-2"
"""Changes whenever what is below changes: a scorer fits the features it was fitted on."""
NUM_HASHED = 2**15
MAX_CHARS = 1_000
"""Of a longer request or answer, only so much is looked at."""
COPIED = "◦"
"""Stands for a word that the person typed."""
MIN_COPIED_CHARS = 4
"""Shorter words ("for", "in") are in every text and say nothing of copying."""
REPETITION_N = 4
MAX_SECTION_WORDS = 6
"""A section up to this long is also one feature as a whole."""
_DIGIT = re.compile(r"\d")
_CODES = (
    "missing",
    "empty",
    "unknown",
    "duplicate",
    "order",
    "repeated",
    "preface",
    "too_long",
    "unparsed",
)
NUMBERS = (
    *(f"violations: {code}" for code in _CODES),
    "answer length (log words)",
    "sections",
    "share of the request found in the answer",
    "share of the answer taken from the request",
    "share of Task taken from the request",
    "share of Context taken from the request",
    "distinct words",
    "fresh 4-grams",
    "letters beyond ASCII",
    "digits",
    "conversation",
)
"""Names of `Features.numbers`, in order."""

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sample:
    """An answer and what it answers."""

    text: str
    """What the person asked."""
    output: str
    target_tool: str | None = None
    language: str | None = None
    is_conversation: bool = False
    """Whether it is a turn of a conversation, which keeps no format; `text` is the last request."""


@dataclass(frozen=True)
class Features:
    """One sample as a scorer sees it."""

    names: tuple[str, ...]
    """Distinct; each is present or not."""
    numbers: Floats
    """(len(NUMBERS),)"""

    @property
    def indices(self) -> Indices:
        """(len(names),) the place of each name among the hashed features."""
        crc32 = zlib.crc32
        raw = [crc32(name.encode("utf-8", "replace")) for name in self.names]
        return np.array(raw, np.int64) % NUM_HASHED

    @property
    def value(self) -> float:
        """What each name present counts, so that long answers weigh no more than short ones."""
        return 1.0 / math.sqrt(max(1, len(self.names)))


def extract(sample: Sample) -> Features:
    """The features of any text whatever; what lies beyond `MAX_CHARS` is not looked at."""
    request, output = sample.text[:MAX_CHARS], sample.output[:MAX_CHARS]
    tool = prompts.nearest_tool(sample.target_tool)
    asked, said = _words(request), _words(output)
    names = dict.fromkeys(_names(asked, said, language=prompts.nearest_language(sample.language)))
    sections: dict[str, str] = {}
    codes: list[str] = []
    if not sample.is_conversation:
        sections = prompts.parse(output)
        codes = [violation.code for violation in prompts.validate(output, target_tool=tool)]
        names |= dict.fromkeys(_section_names(sections, frozenset(asked), tool=tool))
    numbers = _numbers(output, asked, said, sections, codes)
    return Features(tuple(names), np.array([*numbers, float(sample.is_conversation)]))


def _words(text: str) -> list[str]:
    words = [word.strip(".,;:!?؟\"'`()[]{}*#<>") for word in text.lower().split()]
    return [word for word in words if word]


def _marked(words: list[str], asked: frozenset[str]) -> list[str]:
    """`words` with those that were typed, and numbers, replaced by marks."""
    return [
        COPIED
        if word in asked and len(word) >= MIN_COPIED_CHARS
        else "#"
        if word.isdigit()
        else word
        for word in words
    ]


def _names(asked: list[str], said: list[str], *, language: str) -> Iterator[str]:
    found = frozenset(said)
    marked = _marked(said, frozenset(asked))
    for word in marked:
        if word != COPIED:
            yield f"says “{word}”"
            yield f"says “{word}” in {language}"
    for first, second in pairwise(marked):
        yield f"says “{first} {second}”"
    for word in asked:
        if word not in found:
            yield f"leaves out “{word}”"


def _section_names(sections: dict[str, str], asked: frozenset[str], *, tool: str) -> Iterator[str]:
    for name in prompts.TOOLS[tool]:
        if name not in sections:
            yield f"{tool}: no {name}"
    for name, text in sections.items():
        words = _marked(_words(text), asked)
        if len(words) <= MAX_SECTION_WORDS:
            yield f"{tool}: {name} is “{' '.join(words)}”"


def _numbers(
    output: str, asked: list[str], said: list[str], sections: dict[str, str], codes: list[str]
) -> Iterator[float]:
    typed, found = frozenset(asked), frozenset(said)
    size = max(1, len(output))
    yield from (codes.count(code) for code in _CODES)
    yield math.log1p(len(said))
    yield len(sections)
    yield _share(asked, found)
    yield _share(said, typed)
    yield _share(_words(sections.get("Task", "")), typed)
    yield _share(_words(sections.get("Context", "")), typed)
    yield len(found) / max(1, len(said))
    yield freshness(output)
    yield (len(output) - len(output.encode("ascii", "ignore"))) / size
    yield len(_DIGIT.findall(output)) / size


def freshness(text: str, n: int = REPETITION_N) -> float:
    """The share of distinct word n-grams (distinct-n, Li et al. 2016); 1 for short texts."""
    words = text.lower().split()
    grams = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    total = sum(grams.values())
    return len(grams) / total if total else 1.0


def _share(words: list[str], among: frozenset[str]) -> float:
    return sum(word in among for word in words) / len(words) if words else 0.0
