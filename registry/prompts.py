"""The structured-prompt format: which sections each target tool has, and how they are
written, read and checked.

Any chat model may answer in any form: reading is tolerant, and `validate` reports what
is wrong instead of refusing it. What the sections should say is the model's business.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

_LETTER = ("Role", "Task", "Context", "Tone", "Format", "Constraints")

TOOLS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "email": _LETTER,
        "code": ("Role", "Task", "Context", "Format", "Constraints"),
        "report": _LETTER,
        "social": _LETTER,
        "image": ("Role", "Task", "Context", "Style", "Format", "Constraints"),
        "general": _LETTER,
    }
)
"""Ordered section names per target tool."""

LANGUAGES: Mapping[str, str] = MappingProxyType(
    {
        "en": "English",
        "ar": "Arabic",
        "de": "German",
        "es": "Spanish",
        "fr": "French",
        "hi": "Hindi",
        "it": "Italian",
        "ja": "Japanese",
        "pt": "Portuguese",
        "ru": "Russian",
        "tr": "Turkish",
        "zh": "Chinese",
    }
)
"""English names of the known languages, by ISO 639-1 code."""

MAX_SECTION_CHARS = 600
"""A section longer than this many characters is reported as too long."""

_ALIASES: Mapping[str, str] = {
    "mail": "email",
    "gmail": "email",
    "outlook": "email",
    "letter": "email",
    "coding": "code",
    "programming": "code",
    "copilot": "code",
    "cursor": "code",
    "python": "code",
    "sql": "code",
    "document": "report",
    "memo": "report",
    "summary": "report",
    "twitter": "social",
    "linkedin": "social",
    "instagram": "social",
    "facebook": "social",
    "tweet": "social",
    "post": "social",
    "picture": "image",
    "photo": "image",
    "midjourney": "image",
    "dalle": "image",
    "diffusion": "image",
    "art": "image",
}
_SECTION_NAMES: Mapping[str, str] = {
    name.lower(): name for names in TOOLS.values() for name in names
}
_LANGUAGE_CODES: Mapping[str, str] = {name.lower(): code for code, name in LANGUAGES.items()}
_DECORATION = " \t>#*_-•`"
# Both are linear: a run that was read is not read again from within (`*+`, `(?<!`).
# A header: optional list number, a short name, a colon, the rest.
_HEADER = re.compile(r"(?:\d{1,2}[.)]\s+)?([^\W\d_][\w ]{0,23}?)\s*+[*_`]*+\s*+[:：](.*)")  # noqa: RUF001
_CLAUSE = re.compile(r"(?<![;,.])[;,.]++(?:\s+|$)")
_WORDS = re.compile(r"[^\W_]+")
_INSTRUCTION = re.compile(
    r"Convert to professional prompt: (.*)\nTool: [^\n]*\nLanguage: [^\n]*\nSections: [^\n]*",
    re.DOTALL,
)


@dataclass(frozen=True)
class Violation:
    """One way in which an output breaks the format."""

    code: str
    """missing, empty, unknown, duplicate, order, repeated, preface, too_long or unparsed."""
    section: str
    """The section concerned; empty when the whole output is."""
    message: str


def nearest_tool(name: str | None) -> str:
    """The tool that a free name means: "code generation" → "code"; unknown → "general"."""
    words: list[str] = _WORDS.findall((name or "").lower().replace("e-mail", "email"))
    for word in words:
        for candidate in (word, word.removesuffix("s")):
            if candidate in TOOLS:
                return candidate
            if candidate in _ALIASES:
                return _ALIASES[candidate]
    return "general"


def nearest_language(name: str | None) -> str:
    """The known language code that a tag or an English name means; unknown → "en"."""
    words: list[str] = _WORDS.findall((name or "").lower())
    first = words[0] if words else ""
    return first if first in LANGUAGES else _LANGUAGE_CODES.get(first, "en")


def instruction(text: str, *, target_tool: str | None, language: str | None) -> str:
    """What the model is asked: the request, the tool, the language and the sections."""
    tool = nearest_tool(target_tool)
    return (
        f"Convert to professional prompt: {text.strip()}\n"
        f"Tool: {tool}\n"
        f"Language: {LANGUAGES[nearest_language(language)]}\n"
        f"Sections: {', '.join(TOOLS[tool])}"
    )


def request_of(prompt: str) -> str:
    """What was asked in a prompt that `instruction` wrote; any other text is what was asked."""
    match = _INSTRUCTION.fullmatch(prompt)
    return prompt if match is None else match[1]


def messages(text: str, *, target_tool: str | None, language: str | None) -> list[dict[str, str]]:
    """The chat that the model is given: one user message."""
    content = instruction(text, target_tool=target_tool, language=language)
    return [{"role": "user", "content": content}]


def render(sections: Mapping[str, str]) -> str:
    """One line per section, in the mapping's order."""
    return "\n".join(f"{name}: {' '.join(text.split())}" for name, text in sections.items())


def parse(output: str) -> dict[str, str]:
    """Sections by name, in the order written; the first non-empty text of a name wins.

    Sections of no known tool keep the name that the model gave them. Empty when no
    section is found.
    """
    found: dict[str, str] = {}
    for name, text in _scan(output).sections:
        if not found.get(name):
            found[name] = text
    return found


def normalise(output: str, *, target_tool: str | None) -> str:
    """The normal form: the tool's sections in their order, nothing else.

    An output without any of them comes back stripped, otherwise unchanged.
    """
    found = parse(output)
    kept = {name: found[name] for name in TOOLS[nearest_tool(target_tool)] if found.get(name)}
    return render(kept) if kept else output.strip()


def validate(output: str, *, target_tool: str | None) -> list[Violation]:
    """Everything in which `output` departs from the tool's format; empty when nothing."""
    expected = TOOLS[nearest_tool(target_tool)]
    scan = _scan(output)
    if not scan.sections:
        return [Violation("unparsed", "", "No section was found.")]
    violations = []
    if scan.preface:
        violations.append(Violation("preface", "", f"Text before the sections: {scan.preface!r}."))
    violations += _names_wrong([name for name, _ in scan.sections], expected)
    violations += _texts_wrong(scan.sections)
    return violations


@dataclass(frozen=True)
class _Scan:
    preface: str
    sections: list[tuple[str, str]]


@lru_cache(maxsize=4)  # an answer is parsed and validated, one after the other
def _scan(output: str) -> _Scan:
    preface: list[str] = []
    sections: list[tuple[str, list[str]]] = []
    for raw in output.splitlines():
        line = raw.strip()
        if not line or line.startswith("```"):
            continue
        header = _header(line, known_only=not sections)
        if header is not None:
            name, rest = header
            sections.append((name, [rest] if rest else []))
        elif sections:
            sections[-1][1].append(line)
        else:
            preface.append(line)
    joined = [(name, " ".join(" ".join(lines).split())) for name, lines in sections]
    return _Scan(preface=" ".join(preface)[:80], sections=joined)


def _header(line: str, *, known_only: bool) -> tuple[str, str] | None:
    """A section's name and the rest of its line, or None for a line of text."""
    bare = line.strip(_DECORATION) if line.startswith("#") else line.lstrip(_DECORATION)
    match = _HEADER.match(bare)
    if match is None:
        # "## Role" and "**Role**" open a section without a colon.
        name = _SECTION_NAMES.get(line.strip(_DECORATION).lower())
        return (name, "") if name and line[0] in "#*" else None
    typed = " ".join(match[1].split())
    text = match[2].strip().lstrip("*_").strip()
    known = _SECTION_NAMES.get(typed.lower())
    if known:
        return known, text.removesuffix("**") if text.count("**") % 2 else text
    looks_like_name = typed[0].isupper() and len(typed.split()) <= 2
    return (typed, text) if looks_like_name and not known_only else None


def _names_wrong(names: list[str], expected: tuple[str, ...]) -> list[Violation]:
    wrong = [
        Violation("missing", name, f"Section {name} is missing.")
        for name in expected
        if name not in names
    ]
    for name, number in Counter(names).items():
        if name not in expected:
            wrong.append(Violation("unknown", name, f"Section {name} is not one of this tool's."))
        if number > 1:
            wrong.append(Violation("duplicate", name, f"Section {name} occurs more than once."))
    ranks = [expected.index(name) for name in dict.fromkeys(names) if name in expected]
    if ranks != sorted(ranks):
        wrong.append(Violation("order", "", f"Sections are not in the order {expected}."))
    return wrong


def _texts_wrong(sections: list[tuple[str, str]]) -> list[Violation]:
    wrong = []
    seen: set[str] = set()
    for name, text in sections:
        if not text:
            wrong.append(Violation("empty", name, f"Section {name} says nothing."))
            continue
        if len(text) > MAX_SECTION_CHARS:
            message = f"Section {name} has {len(text)} characters, over {MAX_SECTION_CHARS}."
            wrong.append(Violation("too_long", name, message))
        key = text.lower()
        clauses = [clause for part in _CLAUSE.split(key) if (clause := part.strip())]
        if key in seen or len(set(clauses)) < len(clauses):
            wrong.append(Violation("repeated", name, f"Section {name} repeats itself or another."))
        seen.add(key)
    return wrong
