"""What a person who asked would call good. No noise, no model: the request decides.

An answer is good when every section of its tool is there, in order and without repeats;
Task is the task as typed; Context names the audience as typed, or the general reader;
Tone or Style is the one asked for, or the tool's own; and Constraints names the language
and every typed wish (a limit of words, something to mention). Role and Format are free.
"""

from __future__ import annotations

from dataclasses import dataclass

from registry import prompts
from training.base_model.requests import NO_AUDIENCE, STYLE, TONES, Request

COPIED_SLOTS = ("task", "audience", "mention", "limit")
"""Slots that hold the person's own words."""

_EDGES = " .,;:!?\"'`"


@dataclass(frozen=True)
class Verdict:
    """What is right and wrong with one answer."""

    good: bool
    slots_right: int
    slots_total: int
    faults: tuple[str, ...]
    """Codes: the violations of `registry.prompts`, and task, audience, tone, style,
    language, limit, mention."""

    @property
    def score(self) -> int:
        """1 to 5: 5 good; 3 one fault; 2 more, or a wrong reader; 1 a wrong task."""
        if self.good:
            return 5
        if "task" in self.faults or "unparsed" in self.faults:
            return 1
        return 3 if len(self.faults) == 1 and self.faults != ("audience",) else 2


def judge(request: Request, output: str) -> Verdict:
    """The verdict on `output` as the answer to `request`.

    A slot is right when it is copied exactly. A wish that the answer leaves out altogether
    is a fault of policy, not a slot: only what was written can be miscopied.
    """
    sections = prompts.parse(output)
    faults = [
        violation.code for violation in prompts.validate(output, target_tool=request.target_tool)
    ]
    right = total = 0
    for slot in COPIED_SLOTS:
        if slot not in request.slots:
            continue
        outcome = _copied(slot, request.slots[slot], sections)
        if outcome is not True:
            faults.append(slot)
        if outcome is not None:
            right, total = right + outcome, total + 1
    faults += _policy_faults(request, sections)
    return Verdict(not faults, right, total, tuple(dict.fromkeys(faults)))


def reader(sections: dict[str, str]) -> str:
    """Whom the Context section names, without its "for"."""
    text = sections.get("Context", "").strip()
    return text[4:] if text.lower().startswith("for ") else text


def _copied(slot: str, typed: str, sections: dict[str, str]) -> bool | None:
    """Whether a slot came back exactly; None when the answer does not try."""
    if slot == "task":
        return sections.get("Task", "").strip(_EDGES) == typed.strip(_EDGES)
    if slot == "audience":
        named = reader(sections)
        return None if named == "everyone" else named == typed
    written = sections.get("Constraints", "")
    if slot == "limit":
        return f"under {typed} words" in written if "words" in written else None
    _, marker, mentioned = written.partition("mention ")
    return mentioned.strip(_EDGES) == typed.strip(_EDGES) if marker else None


def _policy_faults(request: Request, sections: dict[str, str]) -> list[str]:
    tool, slots = request.target_tool, request.slots
    faults = []
    if "audience" not in slots and reader(sections).lower() != NO_AUDIENCE:
        faults.append("audience")
    tone, style = slots.get("tone", TONES.get(tool, "")), slots.get("style", STYLE)
    if "Tone" in sections and sections["Tone"].lower() != tone.lower():
        faults.append("tone")
    if "Style" in sections and sections["Style"].lower() != style.lower():
        faults.append("style")
    spoken = f"in {prompts.LANGUAGES[request.language]}"
    if "Constraints" in sections and not sections["Constraints"].startswith(spoken):
        faults.append("language")
    return faults
