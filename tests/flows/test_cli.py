"""The command line, as a process of its own: what it says and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.context import Context
from flows.retrain import run_retrain
from registry import versions
from tests.support.fake_learner import FakeLearner
from tests.support.network import free_port
from tests.support.usage import log_liked


def kalimtak(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("KALIMTAK_", "PREFECT_", "RAY_"))
    }
    return subprocess.run(
        [sys.executable, "-c", "from flows.cli import main; main()", *arguments],
        cwd=folder,
        env={**environment, "COLUMNS": "160"},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )


def test_no_command_waits_for_what_only_another_needs() -> None:
    heavy = {"torch", "transformers", "ray", "prefect", "scipy", "matplotlib", "pyarrow"}
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, flows.cli; print(*sys.modules)"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert heavy.isdisjoint(loaded.stdout.split())


@pytest.fixture
def folder(context: Context) -> Path:
    """The working directory whose `var` is the context's home."""
    return context.settings.home.parent


@pytest.mark.parametrize(
    ("file", "complaint"),
    [
        ("colour = 1", "unknown key 'colour'"),
        ("[serving]\nport = 99999", "serving.port = 99999"),
        ("[serving", "is not valid"),
    ],
)
def test_a_wrong_settings_file_is_one_line_and_exit_code_2(
    tmp_path: Path, file: str, complaint: str
) -> None:
    (tmp_path / "kalimtak.toml").write_text(file)
    result = kalimtak(tmp_path, "status")
    assert result.returncode == 2
    assert result.stdout == ""
    assert complaint in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_status_as_json_tells_everything(context: Context, folder: Path) -> None:
    log_liked(context, 30, at=context.clock())
    version = run_retrain(context, FakeLearner([0.8]), workload="default").version
    result = kalimtak(folder, "status", "--json")
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert (told["total_interactions"], told["retrains"], told["up"]) == (30, 1, False)
    assert (told["challenger"], told["challenger_share"]) == (version, 0.1)


def test_a_challenger_is_promoted_and_the_champion_rolled_back_by_hand(
    context: Context, folder: Path
) -> None:
    log_liked(context, 30, at=context.clock())
    version = run_retrain(context, FakeLearner([0.8]), workload="default").version or ""
    promoted = kalimtak(folder, "promote", "--reason", "looks good")
    assert f"champion: {version}" in promoted.stdout
    assert "champion: the base model" in kalimtak(folder, "rollback").stdout
    with context.database.read() as session:
        row = versions.get(session, version)
    assert (row.deployment_status, row.status_reason) == ("rolled_back", "rolled back by hand")
    again = kalimtak(folder, "rollback")
    assert (again.returncode, again.stderr) == (
        2,
        "kalimtak: workload 'default' has no champion to roll back\n",
    )


def test_down_says_that_nothing_was_started(folder: Path) -> None:
    assert kalimtak(folder, "down").stdout == "nothing was started here\n"


def test_check_asks_for_an_upgrade_until_it_was_made(tmp_path: Path) -> None:
    before = kalimtak(tmp_path, "check")
    assert before.returncode == 2
    assert "run 'kalimtak db upgrade'" in before.stderr
    assert kalimtak(tmp_path, "db", "upgrade").returncode == 0
    assert kalimtak(tmp_path, "check").returncode == 0


def test_a_home_that_cannot_be_made_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "var").touch()
    result = kalimtak(tmp_path, "status")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"kalimtak: cannot use {tmp_path}/var")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["audit list --limit", "history --limit", "triggers --last"])
def test_a_number_that_no_database_takes_is_refused(command: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "99999999999999999999"])
    assert result.exit_code == 2


def test_a_retraining_that_nothing_could_start_is_not_said_to_be_started(tmp_path: Path) -> None:
    (tmp_path / "kalimtak.toml").write_text(f"[prefect]\nport = {free_port()}")
    result = kalimtak(tmp_path, "triggers", "--force")
    assert (result.returncode, result.stdout) == (2, "")
    assert "'kalimtak up' first, or --run-here" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert kalimtak(tmp_path, "audit", "list").stdout == ""
    assert "was not checked yet" in kalimtak(tmp_path, "triggers", "--last", "1").stdout
