"""What an answer is measured by. Pure functions of text.

| metric | is | from |
|---|---|---|
| accuracy | share of answers that are right against their reference | exact match of SQuAD, Rajpurkar et al. 2016 (arXiv:1606.05250), section by section |
| section accuracy | share of the references' sections that are reproduced | the same, over sections |
| coherence | share of answers that keep the format and do not repeat themselves | seq-rep-4, Welleck et al. 2020 (arXiv:1908.04319) |
| diversity | distinct bigrams over all bigrams of all answers | distinct-2, Li et al. 2016 (arXiv:1510.03055) |
| chrF | likeness to the reference, by characters, 0 to 1 | Popović 2015, as sacrebleu computes it |
| ROUGE-L | F1 of the longest common subsequence of words with the reference, 0 to 1 | Lin 2004 (W04-1013) |
| self-BLEU | mean BLEU of an answer against the others; high where all say the same, 0 to 1 | Zhu et al. 2018 (arXiv:1802.01886), BLEU as sacrebleu computes it |
| perplexity | exp of the mean loss per token of the references | what the model would have had to write |
| latency | seconds from the start of an answer's batch to its end, median and 95th percentile | this machine's clock |
| repetition | mean share of 4-grams that occurred before in the answer | seq-rep-4, Welleck et al. 2020 |
| refusals | share of answers that begin as a refusal does, or say nothing | the beginnings in this file |
"""  # noqa: E501  # a table's rows cannot be broken

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from registry import prompts

FREE_TEXT_F1 = 0.8
"""Least token F1 of a right answer whose reference is not a structured prompt."""
MAX_REPETITION = 0.2
"""Most repetition, as `repetition` measures it, of a coherent answer."""
MAX_SELF_BLEU = 50
"""Most answers that self-BLEU compares with each other: its work grows by their square."""

_WORDS = re.compile(r"\w+")
_MIN_SECTIONS = 2
_REFUSAL = re.compile(
    r"(i'?m |i am )?(very |so )?sorry\b|i (can(no|.)t|am not able|am unable|won'?t)\b"
    r"|as an ai\b|unfortunately,? i\b",
    re.IGNORECASE,
)


def words(text: str) -> list[str]:
    """The words of `text` as they are compared: NFKC, case-folded, without punctuation."""
    return _WORDS.findall(unicodedata.normalize("NFKC", text).casefold())


def is_structured(reference: str) -> bool:
    """Whether `reference` is a structured prompt: it has at least two known sections."""
    known = {name for names in prompts.TOOLS.values() for name in names}
    return len(known & prompts.parse(reference).keys()) >= _MIN_SECTIONS


def sections_right(output: str, reference: str) -> tuple[int, int]:
    """How many of the reference's sections `output` reproduces word by word, and of how many."""
    expected, got = prompts.parse(reference), prompts.parse(output)
    right = sum(words(got.get(name, "")) == words(text) for name, text in expected.items())
    return right, len(expected)


def is_right(output: str, reference: str, *, target_tool: str | None) -> bool:
    """Whether `output` may stand for `reference`.

    A structured prompt must be valid for its tool and reproduce every section of the
    reference; any other text must share enough words with it (F1 of at least 0.8).
    """
    if not is_structured(reference):
        return token_f1(output, reference) >= FREE_TEXT_F1
    right, expected = sections_right(output, reference)
    return right == expected and not prompts.validate(output, target_tool=target_tool)


def is_coherent(output: str, reference: str, *, target_tool: str | None) -> bool:
    """Whether `output` says something, does not repeat itself and keeps the format.

    The format counts only where the reference follows it.
    """
    if not words(output) or repetition(output) > MAX_REPETITION:
        return False
    return not is_structured(reference) or not prompts.validate(output, target_tool=target_tool)


def token_f1(output: str, reference: str) -> float:
    """Harmonic mean of precision and recall over words, each counted as often as it occurs.

    The F1 of SQuAD (Rajpurkar et al. 2016), without its removal of English articles.
    """
    got, expected = words(output), words(reference)
    if not got or not expected:
        return float(got == expected)
    common = sum((Counter(got) & Counter(expected)).values())
    return 2 * common / (len(got) + len(expected))


def repetition(output: str) -> float:
    """Share of 4-grams of words that occurred before in `output`: seq-rep-4, Welleck et al. 2020.

    0 for a text of fewer than four words.
    """
    grams = _ngrams(words(output), 4)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def chrf(output: str, reference: str) -> float:
    """chrF2 in [0, 1]: F-score of character 6-grams, recall weighing twice (Popović 2015)."""
    from sacrebleu.metrics.chrf import CHRF  # 0.3 s, which readers of scores need not pay

    return float(CHRF().sentence_score(output, [reference]).score) / 100


def rouge_l(output: str, reference: str) -> float:
    """ROUGE-L in [0, 1]: F1 of the longest common subsequence of words (Lin 2004, β = 1)."""
    got, expected = words(output), words(reference)
    common = _common_subsequence(got, expected)
    return 2 * common / (len(got) + len(expected)) if common else 0.0


def self_bleu(outputs: Sequence[str]) -> float | None:
    """Mean BLEU-4 of each output against the others, in [0, 1]; None for fewer than two.

    Of many, evenly spread `MAX_SELF_BLEU` stand for all.
    """
    from sacrebleu.metrics.bleu import BLEU  # as above

    step = max(1, -(-len(outputs) // MAX_SELF_BLEU))
    chosen = outputs[::step]
    if len(chosen) < 2:
        return None
    bleu = BLEU(effective_order=True)
    scores = [
        bleu.sentence_score(output, [*chosen[:place], *chosen[place + 1 :]]).score
        for place, output in enumerate(chosen)
    ]
    return float(sum(scores)) / len(scores) / 100


def is_refusal(output: str) -> bool:
    """Whether `output` says nothing, or begins as a refusal does (English alone)."""
    return not words(output) or bool(_REFUSAL.match(output.strip()))


def diversity(outputs: Iterable[str]) -> float:
    """Distinct bigrams over all bigrams of all outputs: distinct-2, Li et al. 2016.

    It falls as outputs get more, so compare only sets of the same requests.
    """
    grams = [gram for output in outputs for gram in _ngrams(words(output), 2)]
    return len(set(grams)) / len(grams) if grams else 0.0


def _ngrams(tokens: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(tokens[start : start + size]) for start in range(len(tokens) - size + 1)]


def _common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """The length of the longest one; in the memory of one row of the usual table."""
    row = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for place, other in enumerate(second, start=1):
            above = row[place]
            row[place] = diagonal + 1 if word == other else max(above, row[place - 1])
            diagonal = above
    return row[-1]
