"""`kalimtak scorer`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.context import open_context
from registry.clock import utc_now
from registry.errors import ArtifactError, NotFoundError
from tests.support.opinions import log_use

NUM = 320


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    context = open_context()
    log_use(context, NUM, until=utc_now())
    context.database.close()
    return CliRunner()


def shown(run: CliRunner, *arguments: str) -> str:
    result = run.invoke(app, ["scorer", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_scorer_is_fitted_shown_explained_and_turned_off(run: CliRunner) -> None:
    fitted = shown(run, "fit")
    assert "320 ratings" in fitted
    match = re.search(r"scorer-\d+-\w+", fitted)
    assert match is not None
    version = match[0]
    assert version in shown(run, "list")
    assert "nothing was answered" in shown(run, "drift")
    explained = shown(run, "explain", "1-0", "--top", "3")
    assert f"by {version}" in explained
    assert len(explained.strip().splitlines()) == 1 + 1 + 3
    shown(run, "off")
    assert "by rule-1" in shown(run, "explain", "1-0")
    assert "the rule scores" in shown(run, "drift")
    shown(run, "activate", version)
    assert f"by {version}" in shown(run, "explain", "1-0")


def test_what_is_not_there_is_said(run: CliRunner) -> None:
    for arguments in (["explain", "gone"], ["activate", "gone"], ["off"]):
        result = run.invoke(app, ["scorer", *arguments])
        assert isinstance(result.exception, NotFoundError | ArtifactError)
