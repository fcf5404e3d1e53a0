"""Puts a request together: tagged parts in one of many orders, then the noise of typing.

A part is text with the slots that it belongs to. Noise is applied to parts, so that a slot
is always exactly what stands in the typed text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from training.base_model import grammar
from training.base_model.phrases import Phrases

_CLOSING = (",", ".", ":", ";", "?", "!", "؟")


@dataclass(frozen=True)
class Part:
    """Some text of a request and the names of the slots that contain it."""

    text: str
    slots: tuple[str, ...] = ()


def join(parts: list[Part]) -> str:
    """The parts' text, with spaces where people put them."""
    text = ""
    for part in parts:
        glue = "" if not text or part.text.startswith(_CLOSING) else " "
        text += glue + part.text
    return text


def slots_of(parts: list[Part]) -> Mapping[str, str]:
    """Each slot's text: its parts joined."""
    names = dict.fromkeys(name for part in parts for name in part.slots)
    return {name: join([part for part in parts if name in part.slots]) for name in names}


class Composer:
    """Composes English requests for one tool."""

    def __init__(self, phrases: Phrases, tool: str) -> None:
        self.phrases = phrases
        self.rng = phrases.rng
        self.tool = tool

    def compose(self) -> list[Part]:
        """The parts of one request, noise included."""
        told = self.phrases.chance(0.62)
        tone = self.tool not in ("code", "image") and self.phrases.chance(0.35)
        early_tone = tone and self.phrases.chance(0.35)
        parts = self._head(told, self._tone_adjective() if early_tone else None)
        if early_tone and not any("tone" in part.slots for part in parts):
            early_tone = False
        parts += self._wishes(tone=tone and not early_tone)
        if self.phrases.chance(0.08):
            parts.append(Part(self.rng.choice(grammar.TAILS)))
        return self._noisy(parts)

    def _head(self, told: bool, tone: Part | None) -> list[Part]:
        wrapped = self.tool in grammar.ARTEFACTS
        if told and self.tool == "code" and self.phrases.chance(0.12):
            return self._spoken()
        if told and self.phrases.chance(0.12):
            front = [Part(self.rng.choice(grammar.AUDIENCE_FRONTS)), self._audience()]
            return [*front, Part(self.rng.choice((",", ":", ",", " -"))), *self._head(False, tone)]
        if told and self.tool not in ("code", "image") and self.phrases.chance(0.3):
            return self._addressed()
        if wrapped and self.phrases.chance(0.5 if self.tool != "image" else 0.65):
            return self._wrapped(told, tone)
        return self._bare(told)

    def _addressed(self) -> list[Part]:
        """ "Email X about Y", and "Thank X for Y", where all of it is the task."""
        opening = self._opening()
        if self.phrases.chance(0.4):
            verb, link = self.rng.choice(grammar.VERBATIM_ADDRESS)
            rest = self.phrases.verb_task() if link == "to" else self.phrases.noun(1)
            return [
                *opening,
                Part(verb, ("task",)),
                Part(self._audience().text, ("task", "audience")),
                Part(f"{link} {rest}", ("task",)),
            ]
        if self.phrases.chance(0.25):
            return self._spoken()
        address = Part(self.rng.choice(grammar.ADDRESS_VERBS))
        return [*opening, address, self._audience(), *self._linked_task()]

    def _spoken(self) -> list[Part]:
        """ "Explain X to Y"."""
        task = Part(self.phrases.speech(), ("task",))
        return [*self._opening(), task, Part("to"), self._audience()]

    def _linked_task(self) -> list[Part]:
        """A link and a task that fits it: "to" a verb, "about" a noun, "that" a clause."""
        roll = self.rng.random()
        if roll < 0.4:
            return [Part("to"), Part(self.phrases.verb_task(), ("task",))]
        if roll < 0.5:
            clause = self.phrases.chance(0.5)
            task = self.phrases.clause() if clause else self.phrases.verb_task()
            return [Part(self.rng.choice(("that", "that", "which"))), Part(task, ("task",))]
        if roll < 0.55 and not self.phrases.plain:
            return [Part(f"{self.phrases.word()}ing {self.phrases.noun(1)}", ("task",))]
        link = self.rng.choice(grammar.LINKS.get(self.tool, ("about", "on", "regarding")))
        return [Part(link), self._noun_task()]

    def _wrapped(self, told: bool, tone: Part | None) -> list[Part]:
        """ "Write a friendly email to X about Y" in its many forms."""
        parts = self._wrapper_start()
        parts += self._adjectives(tone)
        parts.append(Part(self.rng.choice(grammar.ARTEFACTS[self.tool])))
        if told and self.phrases.chance(0.35) and self.tool != "image":
            parts += [Part(self.rng.choice(("to", "to", "for"))), self._audience()]
            return parts + self._linked_task()
        if self.phrases.chance(0.08):
            parts += [Part(":"), self._any_task()]
        elif self.tool == "image":
            parts += [Part(self.rng.choice(grammar.LINKS["image"])), self._noun_task()]
        else:
            parts += self._linked_task()
        return parts + (self._audience_end() if told else [])

    def _wrapper_start(self) -> list[Part]:
        roll = self.rng.random()
        determiner = [Part(self.rng.choice(grammar.DETERMINERS))]
        if roll < 0.25:
            return determiner if self.phrases.chance(0.7) else []
        if roll < 0.5:
            return [Part(self.rng.choice(grammar.NEEDS)), *determiner]
        verb = Part(self.rng.choice(grammar.MAKES))
        return [*self._opening(), verb, *(determiner if self.phrases.chance(0.9) else [])]

    def _adjectives(self, tone: Part | None) -> list[Part]:
        known = self.phrases.chance(0.6)
        plain = self.rng.choice(grammar.PLAIN_ADJECTIVES) if known else self.phrases.several(2)
        parts = [Part(plain)] if self.phrases.chance(0.28) else []
        if tone is not None:
            parts = [*parts, tone]
        elif self.tool == "image" and self.phrases.chance(0.12):
            parts = [*parts, Part(self.rng.choice(grammar.STYLES), ("style",))]
        return parts

    def _bare(self, told: bool) -> list[Part]:
        """A task with no wrapper: an order, a need, a question or a noun phrase."""
        return [*self._bare_task(), *(self._audience_end() if told else [])]

    def _bare_task(self) -> list[Part]:
        roll = self.rng.random()
        if self.tool == "image" and roll < 0.6:
            verb = [*self._opening(), Part(self.rng.choice(grammar.DRAW_VERBS))]
            return [*(verb if roll < 0.4 else []), self._noun_task()]
        if roll < 0.15:
            return [Part(self.rng.choice(grammar.NEEDS)), self._noun_task()]
        if roll < 0.27:
            asked = self.rng.choice(grammar.QUESTION_OPENINGS)
            opening = [Part(asked)] if self.phrases.chance(0.3) else []
            return [*opening, Part(self.phrases.question(), ("task",))]
        if roll < 0.40:
            return [self._noun_task()]
        if self.tool == "code" and roll < 0.7:
            return [*self._opening(), Part(self.phrases.code_task(), ("task",))]
        return [*self._opening(), Part(self.phrases.verb_task(), ("task",))]

    def _opening(self) -> list[Part]:
        return [Part(self.rng.choice(grammar.OPENINGS))] if self.phrases.chance(0.4) else []

    def _any_task(self) -> Part:
        make = self.rng.choice((self.phrases.verb_task, self.phrases.noun, self.phrases.clause))
        return Part(make(), ("task",))

    def _noun_task(self) -> Part:
        return Part(self.phrases.noun(), ("task",))

    def _audience(self) -> Part:
        return Part(self.phrases.audience(), ("audience",))

    def _audience_end(self) -> list[Part]:
        return [Part(self.rng.choice(grammar.AUDIENCE_MARKERS)), self._audience()]

    def _tone_adjective(self) -> Part:
        return Part(self.rng.choice(grammar.TONES), ("tone",))

    def _wishes(self, *, tone: bool) -> list[Part]:
        groups = []
        if tone:
            groups.append(
                self._marked(grammar.TONE_MARKERS, self.rng.choice(grammar.TONES), "tone")
            )
        if self.tool == "image" and self.phrases.chance(0.4):
            groups.append(self._marked(grammar.STYLE_MARKERS, self._style(), "style"))
        if self.phrases.chance(0.22):
            marker = Part(self.rng.choice(grammar.MENTION_MARKERS))
            groups.append([marker, Part(self.phrases.mention(), ("mention",))])
        if self.tool != "image" and self.phrases.chance(0.15):
            number = str(self.rng.randrange(2, 60) * 10)
            groups.append(self._marked(grammar.LIMIT_MARKERS, number, "limit"))
        if self.phrases.chance(0.06):
            groups.append([Part(self.rng.choice(grammar.EMPTY_WISHES))])
        self.rng.shuffle(groups)
        return [part for group in groups for part in group]

    def _style(self) -> str:
        if self.phrases.chance(0.8):
            return self.rng.choice(grammar.STYLES)
        return self.phrases.several(2)

    def _marked(self, markers: tuple[str, ...], text: str, slot: str) -> list[Part]:
        before, after = self.rng.choice(markers).split("{}")
        parts = [Part(before.strip())] if before.strip() else []
        parts.append(Part(text, (slot,)))
        return parts + ([Part(after.strip())] if after.strip() else [])

    def _noisy(self, parts: list[Part]) -> list[Part]:
        if self.phrases.chance(0.06) and not self.phrases.plain:
            parts = self._mistyped(parts)
        roll = self.rng.random()
        if roll < 0.05:
            parts = [Part(part.text.lower(), part.slots) for part in parts]
        elif roll < 0.065 and not self.phrases.plain:
            parts = [Part(part.text.upper(), part.slots) for part in parts]
        elif roll < 0.6:
            first = parts[0]
            parts = [Part(first.text[0].upper() + first.text[1:], first.slots), *parts[1:]]
        ending = self.rng.choices(("", ".", "!", "?", "..."), (55, 25, 5, 12, 3))[0]
        return [*parts, Part(ending)] if ending else parts

    def _mistyped(self, parts: list[Part]) -> list[Part]:
        """One slip of the fingers in the words that carry no slot."""
        places = [i for i, part in enumerate(parts) if not part.slots and len(part.text) > 4]
        if not places:
            return parts
        place = self.rng.choice(places)
        text = parts[place].text
        at = self.rng.randrange(1, len(text) - 2)
        swapped = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
        slip = swapped if self.phrases.chance(0.6) else text[:at] + text[at + 1 :]
        return [*parts[:place], Part(slip), *parts[place + 1 :]]


def compose_arabic(phrases: Phrases) -> list[Part]:
    """An Arabic request: all of it is the task, save politeness and a marked audience."""
    rng = phrases.rng
    parts = [Part(rng.choice(grammar.ARABIC_OPENINGS))] if phrases.chance(0.12) else []
    head = [rng.choice(grammar.ARABIC_HEADS)] if phrases.chance(0.7) else []
    task = " ".join([*head, phrases.several(3)])
    if phrases.chance(0.5):
        task += f" {rng.choice(grammar.ARABIC_PREPOSITIONS)} {phrases.several(2)}"
    parts.append(Part(task, ("task",)))
    if phrases.chance(0.3):
        parts.append(Part(rng.choice(grammar.ARABIC_AUDIENCE_MARKERS)))
        parts.append(Part(phrases.several(2), ("audience",)))
    ending = rng.choices(("", ".", "؟", "!"), (60, 20, 15, 5))[0]
    return [*parts, Part(ending)] if ending else parts
