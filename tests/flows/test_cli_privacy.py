"""`kalimtak erase-user`, `export-user`, `consent`, `erasures`, `keys`, `retention`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.context import open_context
from registry.errors import SettingsError
from registry.settings import load_settings
from tests.flows.conftest import NOW
from tests.support.usage import log_liked


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KALIMTAK_HOME", str(tmp_path / "home"))
    context = open_context(load_settings())
    log_liked(context, 5, at=NOW)
    context.database.close()
    return tmp_path / "home"


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.output
    return result.stdout


def test_export_then_erasure_then_nothing(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "export.json"
    run("export-user", "user-1", "--out", str(out))
    assert len(json.loads(out.read_text())["interactions"]) == 1
    assert out.stat().st_mode & 0o777 == 0o600
    report = json.loads(run("erase-user", "user-1", "--approved-by", "the officer"))
    assert report["rows"]["user_interactions"] == 1
    assert report["approved_by"] == "the officer"
    assert report["scrubbed_at"] is not None
    assert json.loads(run("export-user", "user-1"))["interactions"] == []
    kept = home / "erasures" / f"{report['erasure_id']}.json"
    assert json.loads(kept.read_text()) == report
    assert json.loads(run("erasures", "show", report["erasure_id"])) == report
    assert report["erasure_id"] in run("erasures", "list")
    assert run("erasures", "verify", str(kept)) == "genuine\n"
    kept.write_text(kept.read_text().replace("the officer", "nobody"))
    assert "NOT genuine" in run("erasures", "verify", str(kept), code=1)


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("command", ["export-user user-1", "erase-user user-1 --approved-by boss"])
def test_nothing_is_done_where_its_report_could_not_be_written(
    tmp_path: Path, command: str
) -> None:
    for out in (tmp_path / "missing" / "r.json", tmp_path):
        result = CliRunner().invoke(app, [*command.split(), "--out", str(out)])
        assert isinstance(result.exception, OSError | SettingsError)
    assert run("audit", "list") == ""
    assert len(json.loads(run("export-user", "user-1"))["interactions"]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@pytest.mark.usefixtures("home")
def test_consent_is_told_and_set() -> None:
    assert run("consent", "user-1") == "granted\n"
    assert run("consent", "user-1", "opt_out") == "no_training\n"
    assert run("consent", "user-1") == "no_training\n"
    assert run("consent", "user-1", "no_content") == "no_content\n"


@pytest.mark.usefixtures("home")
def test_keys_are_listed_and_rotated() -> None:
    assert "never changes" in run("keys", "list")
    assert "5 values encrypted again" in run("keys", "rotate")
    listed = run("keys", "list")
    assert "current" in listed
    assert "older" in listed
    assert run("keys", "reseal") == "0 values encrypted again\n"


@pytest.mark.usefixtures("home")
def test_retention_tells_what_it_did() -> None:
    # The answers are of a past that lies further back than they are kept, or it will.
    assert "interactions" in run("retention")


def test_a_wrong_key_is_one_line_and_exit_code_2(home: Path) -> None:
    (home / "secret.key").write_text("00" * 32)
    environment = {**os.environ, "KALIMTAK_HOME": str(home)}
    result = subprocess.run(
        [sys.executable, "-m", "flows.cli", "export-user", "user-1"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "put the right secret.key back" in result.stderr
