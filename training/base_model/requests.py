"""Requests as people type them, and the answer that each of them deserves."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from registry import prompts
from training.base_model.composer import Composer, compose_arabic, join, slots_of
from training.base_model.phrases import Phrases, PlainPhrases

NO_AUDIENCE = "general readers"
"""Whom a prompt is for when the request does not say."""

ROLES: Mapping[str, str] = {
    "email": "expert email writer",
    "code": "senior software engineer",
    "report": "careful business analyst",
    "social": "social media editor",
    "image": "skilled visual artist",
    "general": "helpful expert",
}
TONES: Mapping[str, str] = {
    "email": "professional",
    "report": "formal",
    "social": "lively",
    "general": "clear",
}
FORMATS: Mapping[str, str] = {
    "email": "subject line, short paragraphs",
    "code": "working code, short comments",
    "report": "headings, key figures",
    "social": "one short post, hashtags",
    "image": "one square image",
    "general": "short plain answer",
}
STYLE = "photorealistic"

_LANGUAGE_WEIGHTS = {"en": 22, "ar": 4}


@dataclass(frozen=True)
class Request:
    """One request and what is in it."""

    text: str
    target_tool: str
    language: str
    slots: Mapping[str, str]
    """The typed text of task (always), audience, tone, style, mention and limit (words)."""


def sample_request(
    rng: random.Random,
    *,
    words: str = "mixed",
    tool: str | None = None,
    unseen: bool = True,
    tangled: bool = False,
    pieces: Sequence[str] = (),
) -> Request:
    """A request of the grammar whose slots hold fresh words.

    `words`: english, invented, arabic, accented, names, numbers or mixed. `unseen` draws
    them from the fifth that training never saw. `tangled` requests, those of training, may
    be such that only luck finds the slots (word salad, unmarked readers, slips, capitals).
    `pieces`: see `words.fresh_word`.
    """
    phrases = (Phrases if tangled else PlainPhrases)(rng, words, unseen=unseen, pieces=pieces)
    target = tool or rng.choice(tuple(prompts.TOOLS))
    language = _language(rng)
    if phrases.kind == "arabic" and phrases.chance(0.6):
        phrases.mixed = False
        language = "ar" if phrases.chance(0.8) else "en"
        parts = compose_arabic(phrases)
    else:
        parts = Composer(phrases, target).compose()
    return Request(join(parts), target, language, slots_of(parts))


def ideal(request: Request) -> str:
    """The answer that a perfect policy would give, rendered."""
    return prompts.render(ideal_sections(request))


def ideal_sections(request: Request) -> dict[str, str]:
    """The perfect answer's sections, in the tool's order."""
    tool, slots = request.target_tool, request.slots
    texts = {
        "Role": ROLES[tool],
        "Task": slots["task"],
        "Context": f"for {slots.get('audience', NO_AUDIENCE)}",
        "Tone": slots.get("tone", TONES.get(tool, "")),
        "Style": slots.get("style", STYLE),
        "Format": FORMATS[tool],
        "Constraints": constraints(request.language, slots),
    }
    return {name: texts[name] for name in prompts.TOOLS[tool]}


def constraints(language: str, slots: Mapping[str, str]) -> str:
    """The answer's language, then its limit, then what it must mention."""
    wishes = [f"in {prompts.LANGUAGES[language]}"]
    if "limit" in slots:
        wishes.append(f"under {slots['limit']} words")
    if "mention" in slots:
        wishes.append(f"mention {slots['mention']}")
    return ", ".join(wishes)


def _language(rng: random.Random) -> str:
    codes = tuple(prompts.LANGUAGES)
    return rng.choices(codes, [_LANGUAGE_WEIGHTS.get(code, 1) for code in codes])[0]
