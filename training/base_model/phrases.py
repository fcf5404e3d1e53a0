"""Phrases of fresh words in the shapes that people's words have: what the slots hold."""

from __future__ import annotations

import random
from collections.abc import Sequence

from training.base_model import grammar, words

_DETERMINERS = ("the", "the", "the", "a", "a", "an", "my", "our", "your", "this", "their", "two")
_RELATIVES = ("that", "which", "who", "while", "because", "so it", "so that", "when", "if")
_AUXILIARIES = ("is", "are", "was", "will", "can", "has", "does not", "should", "it", "we", "I")
_PLAIN_PREPOSITIONS = ("of", "of", "in", "with", "on", "at", "from", "and", "without", "about")
_PLAIN_AUXILIARIES = ("is", "are", "was", "has", "does not need", "should be")
_MIXED_WEIGHTS = (26, 38, 8, 9, 10, 9)


class Phrases:
    """Draws phrases with one source of randomness and one choice of words.

    `kind` is one of `words.KINDS`, or "mixed": then every request leans to one kind.
    """

    plain = False
    """Whether requests are to be free of slips and capitals too."""

    def __init__(
        self, rng: random.Random, kind: str, *, unseen: bool, pieces: Sequence[str] = ()
    ) -> None:
        self.rng = rng
        self.mixed = kind == "mixed"
        self.kind = rng.choices(words.KINDS, _MIXED_WEIGHTS)[0] if self.mixed else kind
        self.unseen = unseen
        self.pieces = pieces

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def word(self) -> str:
        """One fresh word; numbers and names stand among ordinary ones."""
        kind = self.kind
        if self.mixed and self.chance(0.3):
            kind = self.rng.choices(words.KINDS, _MIXED_WEIGHTS)[0]
        elif kind in ("numbers", "names") and self.chance(0.6):
            kind = "english"
        return words.fresh_word(self.rng, kind, unseen=self.unseen, pieces=self.pieces)

    def several(self, most: int) -> str:
        """One to `most` fresh words, more often few."""
        number = min(most, self.rng.choice((1, 1, 1, 2, 2, 3)))
        return " ".join(self.word() for _ in range(number))

    def noun(self, depth: int = 1) -> str:
        """A noun phrase: "the w", "w w of a w", "w, w and w", "w for next week"."""
        head = self.several(3)
        if self.chance(0.45):
            head = f"{self.rng.choice(_DETERMINERS)} {head}"
        if depth and self.chance(0.45):
            head += f" {self.rng.choice(grammar.PREPOSITIONS)} {self.noun(depth - 1)}"
        roll = self.rng.random()
        if roll < 0.05:
            return f"{head}, {self.several(2)} and {self.several(2)}"
        if roll < 0.06:
            return f"{head}, {self.several(2)}"
        if roll < 0.065:
            return f"{head} & {self.several(2)}"
        if roll < 0.095:
            return f"{head} {self.rng.choice(_RELATIVES)} {self.clause()}"
        if roll < 0.115:
            return f"{head} {self.rng.choice(('for', 'on', 'by'))} {self.rng.choice(grammar.TIMES)}"
        if roll < 0.13:
            return f"{head} for {self.word()}ing {self.several(2)}"
        if roll < 0.14:
            return f"{head} ({self.several(2)})"
        return head

    def clause(self) -> str:
        """A clause after its opener: "the w w a w", "w is w in w"."""
        text = self.noun(0)
        if self.chance(0.5):
            text += f" {self.rng.choice(_AUXILIARIES)}"
        return f"{text} {self.noun(1)}" if self.chance(0.4) else f"{text} {self.word()}"

    def verb_task(self) -> str:
        """A task that starts with a verb, known or not."""
        verb = self.rng.choice(grammar.VERBS) if self.chance(0.6) else self.word()
        if verb in grammar.SPEAKING_VERBS:
            return self.speech()
        roll = self.rng.random()
        if roll < 0.06:
            return f"{self.rng.choice(grammar.VERBS_WITH_FOR)} {self.noun(1)}"
        if roll < 0.7:
            return f"{verb} {self.noun()}"
        if roll < 0.85:
            return f"{verb} {self.rng.choice(('how', 'why', 'what', 'that'))} {self.clause()}"
        return f"{verb} {self.noun(0)} {self.rng.choice(grammar.PREPOSITIONS)} {self.noun(1)}"

    def speech(self) -> str:
        """ "explain w w": no "to" inside, since that would name whom it is explained to."""
        verb = self.rng.choice(grammar.SPEAKING_VERBS)
        if self.chance(0.3):
            return f"{verb} {self.rng.choice(('how', 'why', 'what'))} {self.clause()}"
        return f"{verb} {self.noun(1)}".replace(" to ", " in ")

    def code_task(self) -> str:
        """ "write a python function that …", all of it."""
        make, thing = self.rng.choice(grammar.CODE_MAKES), self.rng.choice(grammar.CODE_THINGS)
        article = (
            self.rng.choice(("a", "a", "the", "one", "")) if make else self.rng.choice(("a", ""))
        )
        link = self.rng.choice(grammar.CODE_LINKS)
        rest = f"{self.word()}ing {self.noun(1)}" if link == "for" else self.verb_task()
        return " ".join(filter(None, (make, article, thing, link, rest)))

    def question(self) -> str:
        return f"{self.rng.choice(grammar.QUESTIONS)} {self.clause()}"

    def audience(self) -> str:
        """Who reads it: people by a word, a name, or a group with something about it."""
        if self.mixed and self.chance(0.22):
            return self.rng.choice(grammar.PEOPLE)
        if self.kind == "names" or (self.mixed and self.chance(0.12)):
            return words.name(self.rng, unseen=self.unseen)
        roll = self.rng.random()
        if roll < 0.4:
            determiner = self.rng.choice(("the", "the", "my", "our", "a", "all", "his", "your"))
            return f"{determiner} {self.several(2)}"
        if roll < 0.85:
            return self.several(2)
        link = self.rng.choice(("with", "who", "and", "of", "in", "at", "from", "without"))
        return f"{self.rng.choice(('', 'the ', 'a ', 'people '))}{self.several(2)} {link} " + (
            self.several(2)
        )

    def mention(self) -> str:
        text = self.several(2)
        if self.chance(0.35):
            text = f"{self.rng.choice(('the', 'our', 'a', 'my', 'that'))} {text}"
        if self.chance(0.15):
            text += f" {self.rng.choice(('of', 'and', 'in', 'on', 'with'))} {self.word()}"
        return text


class PlainPhrases(Phrases):
    """Phrases that a person could take apart whatever the words mean.

    Nouns have articles, verbs are known ones, and readers are marked as such by an article,
    a title or their trade.
    """

    plain = True

    def noun(self, depth: int = 1) -> str:
        head = self.several(2)
        if self.chance(0.85):
            head = f"{self.rng.choice(_DETERMINERS)} {head}"
        if depth and self.chance(0.45):
            head += f" {self.rng.choice(_PLAIN_PREPOSITIONS)} {self.noun(depth - 1)}"
        if self.chance(0.03):
            head += f" on {self.rng.choice(grammar.TIMES)}"
        return head

    def clause(self) -> str:
        return f"{self.noun(0)} {self.rng.choice(_PLAIN_AUXILIARIES)} {self.noun(0)}"

    def verb_task(self) -> str:
        verb = self.rng.choice(grammar.VERBS)
        if verb in grammar.SPEAKING_VERBS:
            return self.speech()
        if self.chance(0.15):
            return f"{verb} {self.rng.choice(('how', 'why'))} {self.clause()}"
        return f"{verb} {self.noun()}"

    def audience(self) -> str:
        if self.kind == "names" or (self.mixed and self.chance(0.15)):
            return words.name(self.rng, unseen=self.unseen)
        if self.mixed and self.chance(0.25):
            return self.rng.choice(grammar.PEOPLE)
        return f"{self.rng.choice(('the', 'the', 'my', 'our', 'your'))} {self.several(2)}"
