"""`kalimtak workload`: what may be added, and what is listed."""

from __future__ import annotations

from pathlib import Path

from tests.flows.test_cli import kalimtak


def test_a_workload_is_added_once_and_listed_with_what_serves_it(tmp_path: Path) -> None:
    added = kalimtak(tmp_path, "workload", "add", "support-bot")
    assert added.returncode == 0, added.stderr
    again = kalimtak(tmp_path, "workload", "add", "support-bot")
    assert (again.returncode, again.stderr) == (
        2,
        "kalimtak: workload 'support-bot' exists already\n",
    )
    listed = kalimtak(tmp_path, "workload", "list").stdout
    assert "support-bot" in listed
    assert "kalimtak" in listed
    assert "base model" in listed
