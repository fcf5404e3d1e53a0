from __future__ import annotations

import sys
from pathlib import Path

import pytest

from registry import prompts
from training.encoding import Example
from training.errors import DataError
from training.evaluation import frozen
from training.evaluation.frozen import apart_from, freeze, read_suite


def _asked(text: str, number: int = 0) -> Example:
    return Example(
        id=f"e{number}",
        messages=({"role": "user", "content": text}, {"role": "assistant", "content": "Yes."}),
        target_tool="email",
        language="en",
    )


def test_a_suite_is_named_by_its_content_whatever_the_order(tmp_path: Path) -> None:
    examples = [_asked("one two", 1), _asked("three four", 2)]
    path = freeze(examples, name="support-v1", folder=tmp_path)
    assert path == freeze(examples[::-1], name="support-v1", folder=tmp_path)
    assert read_suite(path) == examples
    other = freeze(examples[:1], name="support-v1", folder=tmp_path)
    assert other != path


def test_a_suite_that_was_changed_is_refused(tmp_path: Path) -> None:
    path = freeze([_asked("one two")], name="support-v1", folder=tmp_path)
    path.write_text(path.read_text().replace("two", "too"))
    with pytest.raises(DataError, match="was changed"):
        read_suite(path)
    with pytest.raises(DataError, match="is no frozen suite"):
        read_suite(tmp_path / "train.jsonl")


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("please write a mail to the whole team about lunch", True),
        ("Please write a MAIL to the whole team, about lunch!", True),
        ("please write a mail to the whole team about dinner", True),
        ("write a poem about the sea", False),
        ("lunch about team whole the to mail a write please", False),
    ],
)
def test_what_is_near_to_a_question_is_left_out(text: str, near: bool) -> None:
    suite = [_asked("please write a mail to the whole team about lunch"), _asked("hello")]
    kept, left_out = apart_from([_asked(text, 7)], suite)
    assert (left_out == ["e7"]) == near
    assert (kept == []) == near


@pytest.mark.parametrize(
    ("question", "sample", "near"),
    [
        ("Cancel order", "Book a flight", False),
        ("Cancel order", "Thank the team", False),
        ("Cancel order", "cancel order!", True),
        ("Thank the whole team for a good year", "Thank the whole team for a good week", True),
    ],
)
def test_what_the_format_puts_around_a_question_makes_nothing_near(
    question: str, sample: str, near: bool
) -> None:
    suite, given = (
        _asked(prompts.instruction(text, target_tool="email", language="en"))
        for text in (question, sample)
    )
    assert (apart_from([given], [suite])[1] == ["e0"]) == near
    assert (apart_from([given], [_asked(question)])[1] == ["e0"]) == near


def test_one_word_is_near_to_itself_alone() -> None:
    kept, left_out = apart_from([_asked("Hello!", 1), _asked("goodbye", 2)], [_asked("hello")])
    assert left_out == ["e1"]
    assert [example.id for example in kept] == ["e2"]


def test_the_command_freezes_a_file_or_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text(
        '{"id": "1", "messages": [{"role": "user", "content": "a"}], "completion": "b"}\n'
    )
    arguments = ["frozen", str(questions), "--name", "support-v1", "--folder", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    frozen._main()
    (written,) = tmp_path.glob("support-v1.*.jsonl")
    assert capsys.readouterr().out == f"{written}\n"
    assert [example.id for example in read_suite(written)] == ["1"]
    questions.write_text("{}\n")
    with pytest.raises(SystemExit) as ended:
        frozen._main()
    assert ended.value.code == 2
    assert "line 1: not a training example" in capsys.readouterr().err
