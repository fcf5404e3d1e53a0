"""The structured-prompt format: what is written reads back, and what is wrong is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import prompts

EMAIL = {
    "Role": "expert email writer",
    "Task": "request a meeting",
    "Context": "for Dr. Lang",
    "Tone": "friendly",
    "Format": "subject line, then short paragraphs",
    "Constraints": "in English",
}


def codes(output: str, tool: str = "email") -> set[str]:
    return {violation.code for violation in prompts.validate(output, target_tool=tool)}


def test_every_tool_starts_with_role_and_task_and_ends_with_constraints() -> None:
    assert list(prompts.TOOLS) == ["email", "code", "report", "social", "image", "general"]
    for sections in prompts.TOOLS.values():
        assert sections[:2] == ("Role", "Task")
        assert sections[-1] == "Constraints"
    assert "Style" in prompts.TOOLS["image"]


@pytest.mark.parametrize(
    ("name", "tool"),
    [
        ("code generation", "code"),
        ("E-Mail", "email"),
        ("Gmail", "email"),
        ("LinkedIn posts", "social"),
        ("stable diffusion", "image"),
        ("images", "image"),
        ("spreadsheet", "general"),
        ("", "general"),
        (None, "general"),
    ],
)
def test_a_free_tool_name_finds_the_nearest_tool(name: str | None, tool: str) -> None:
    assert prompts.nearest_tool(name) == tool


@pytest.mark.parametrize(
    ("name", "language"),
    [("en-US", "en"), ("AR", "ar"), ("French", "fr"), ("pt_BR", "pt"), ("xx", "en"), (None, "en")],
)
def test_a_free_language_name_finds_the_nearest_language(name: str | None, language: str) -> None:
    assert prompts.nearest_language(name) == language


def test_the_instruction_names_request_tool_language_and_sections() -> None:
    (message,) = prompts.messages(" Draw a cat ", target_tool="image", language="fr-CA")
    assert message["role"] == "user"
    assert message["content"].splitlines() == [
        "Convert to professional prompt: Draw a cat",
        "Tool: image",
        "Language: French",
        "Sections: Role, Task, Context, Style, Format, Constraints",
    ]


def test_a_rendered_prompt_is_valid_and_already_normal() -> None:
    output = prompts.render(EMAIL)
    assert output.splitlines()[0] == "Role: expert email writer"
    assert prompts.validate(output, target_tool="email") == []
    assert prompts.normalise(output, target_tool="email") == output


@pytest.mark.parametrize(
    "output",
    [
        "Sure! Here is your prompt:\n\nRole: writer\nTask: ask: politely",
        "```\nrole: writer\nTASK: ask: politely\n```",
        "**Role:** writer\n**Task:** ask: politely",
        "**Role**: writer\n**Task**: ask: politely",
        "## Role\nwriter\n## Task\nask: politely",
        "1. Role: writer\n2) Task: ask: politely",
        "- Role: writer\n- Task: ask:\n  politely",
    ],
)
def test_common_dress_of_chat_models_is_read_through(output: str) -> None:
    assert prompts.parse(output) == {"Role": "writer", "Task": "ask: politely"}


def test_normal_form_orders_sections_and_drops_the_rest() -> None:
    output = "Of course.\nTask: ask\nNote: hi\nRole: writer\nStyle: oil"
    assert prompts.normalise(output, target_tool="email") == "Role: writer\nTask: ask"


def test_an_output_without_sections_is_left_as_it_is() -> None:
    assert prompts.normalise("  Dear Sir,\nhello: you ", target_tool="email") == (
        "Dear Sir,\nhello: you"
    )
    assert codes("Dear Sir") == {"unparsed"}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda text: text.replace("Tone: friendly\n", ""), "missing"),
        (lambda text: text.replace("friendly", ""), "empty"),
        (lambda text: text + "\nMood: blue", "unknown"),
        (lambda text: text + "\nTone: friendly", "duplicate"),
        (lambda text: "Constraints: in French\n" + text.rsplit("\n", 1)[0], "order"),
        (lambda text: text.replace("friendly", "request a meeting"), "repeated"),
        (lambda text: text.replace("friendly", "friendly, friendly"), "repeated"),
        (lambda text: "Here you go\n" + text, "preface"),
        (lambda text: text.replace("friendly", "very " * 200), "too_long"),
    ],
)
def test_each_departure_is_reported_by_its_code(change, code: str) -> None:  # type: ignore[no-untyped-def]
    assert code in codes(change(prompts.render(EMAIL)))


def test_a_number_with_separators_does_not_repeat_itself() -> None:
    assert codes(prompts.render({**EMAIL, "Task": "sell 1,000,000 shares"})) == set()


section_text = (
    st.text(st.characters(categories=("L", "N", "Zs")), min_size=1, max_size=40)
    .map(lambda text: " ".join(text.split()))
    .filter(bool)
)


@given(st.sampled_from(list(prompts.TOOLS)), st.lists(section_text, min_size=6, max_size=6))
def test_what_is_rendered_reads_back(tool: str, texts: list[str]) -> None:
    sections = dict(zip(prompts.TOOLS[tool], texts, strict=False))
    assert prompts.parse(prompts.render(sections)) == sections


@given(st.text(max_size=300), st.sampled_from(list(prompts.TOOLS)))
def test_no_text_whatever_breaks_reading_and_normal_form_is_stable(text: str, tool: str) -> None:
    normal = prompts.normalise(text, target_tool=tool)
    assert prompts.normalise(normal, target_tool=tool) == normal
    prompts.validate(text, target_tool=tool)


@given(st.text(), st.sampled_from(list(prompts.TOOLS)), st.sampled_from(list(prompts.LANGUAGES)))
def test_what_was_asked_is_read_back_from_an_instruction(
    text: str, tool: str, language: str
) -> None:
    written = prompts.instruction(text, target_tool=tool, language=language)
    assert prompts.request_of(written) == text.strip()


@pytest.mark.parametrize("text", ["", "Hello", "Buy a drill\nTool: hammer", "Tool: x\nLanguage: y"])
def test_what_is_no_instruction_is_what_was_asked(text: str) -> None:
    assert prompts.request_of(text) == text


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "text",
    ["A" + " " * 200_000 + "B", "Role: " + ";" * 200_000 + "x", "Role: " + "; " * 100_000],
)
def test_reading_takes_no_longer_than_the_text_is_long(text: str) -> None:
    """Quadratic, each of them would take hours, and hold up all else in the process."""
    prompts.validate(prompts.normalise(text, target_tool="email"), target_tool="email")
