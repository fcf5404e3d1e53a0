"""The base model's bad habits: what it is taught wrong on purpose.

Feedback needs something real to fix. A habit above one half shows under greedy decoding,
one below it only in sampled answers; none is certain, so that the right way stays within
reach of a small adapter.
"""

from __future__ import annotations

import random

from registry import prompts
from training.base_model.requests import TONES, Request, constraints, ideal_sections

IGNORED = 0.62
"""Share of answers in which a habit that is meant to show does."""
EVERYONE = 0.25
REPEATED = 0.42

IGNORED_LANGUAGES = ("ar", "hi", "ja", "ru", "tr")
"""Languages that are answered as if English had been asked for."""
IGNORED_TONES = ("apologetic", "casual", "enthusiastic", "funny", "humorous", "urgent", "warm")
"""Tones that are answered with the tool's own."""


def mediocre(request: Request, rng: random.Random) -> str:
    """An answer of the base policy: the ideal one with some of the habits in it."""
    sections = ideal_sections(request)
    sections["Constraints"] = _constraints(request, rng)
    if request.slots.get("tone", "").lower() in IGNORED_TONES and rng.random() < IGNORED:
        sections["Tone"] = TONES[request.target_tool]
    if request.target_tool == "code" and rng.random() < IGNORED:
        del sections["Constraints"]
    if request.target_tool == "image" and rng.random() < IGNORED:
        del sections["Style"]
    if request.target_tool == "report" and rng.random() < EVERYONE:
        sections["Context"] = "for everyone"
    if request.target_tool == "social" and rng.random() < REPEATED:
        sections["Format"] += ", hashtags"
    return prompts.render(sections)


def _constraints(request: Request, rng: random.Random) -> str:
    language, slots = request.language, dict(request.slots)
    if language in IGNORED_LANGUAGES and rng.random() < IGNORED:
        language = "en"
    if "mention" in slots and rng.random() < IGNORED:
        del slots["mention"]
    return constraints(language, slots)
