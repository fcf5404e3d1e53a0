"""What holds for every command: the workload that it is about, and how it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from flows.cli import app
from flows.context import Context
from registry.errors import NotFoundError


def with_workload(group: Any, *path: str) -> Iterator[tuple[str, ...]]:
    """The commands that take --workload, with whatever else they need."""
    for name, command in group.commands.items():
        here = (*path, name)
        if hasattr(command, "commands"):
            yield from with_workload(command, *here)
        elif any("--workload" in option.opts for option in command.params):
            needed = [option for option in command.params if option.required]
            yield here + tuple(
                text
                for option in needed
                for text in ([option.opts[0], "x"] if option.opts[0][0] == "-" else ["dataset"])
            )


COMMANDS = [found for found in with_workload(get_command(app)) if found[0] != "federate"]
"""`federate` is about the workloads of other installations."""


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_workload_that_does_not_exist_is_refused(
    context: Context, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(context.settings.home.parent)
    result = CliRunner().invoke(app, [*command, "--workload", "nosuch"])
    assert isinstance(result.exception, NotFoundError)
    assert str(result.exception) == "there is no workload 'nosuch'; there are: default"
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("--workload nosuch pause", "there is no workload 'nosuch'; there are: default"),
        ("--workload nosuch pause --workload default", "workload 'default' has no trial running"),
    ],
)
def test_a_workload_given_before_the_verb_counts(
    context: Context, monkeypatch: pytest.MonkeyPatch, command: str, complaint: str
) -> None:
    monkeypatch.chdir(context.settings.home.parent)
    result = CliRunner().invoke(app, ["experiment", *command.split()])
    assert complaint in str(result.exception)
