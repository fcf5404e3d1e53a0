"""`kalimtak token` and `kalimtak key`."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import jwt
import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.errors import UnreadableTimeError
from registry.clock import utc_now
from registry.crypto import load_keyring
from registry.settings_access import AuthSettings
from serving.access.tokens import make_signer


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KALIMTAK_HOME", str(tmp_path))
    return tmp_path


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_token_says_who_and_for_how_long(home: Path) -> None:
    text = run("token", "alice", "--role", "reviewer", "--hours", "2").strip()
    signer = make_signer(AuthSettings(), load_keyring(home))
    claims = jwt.decode(text, signer.secrets["home"], algorithms=["HS256"])
    assert (claims["sub"], claims["role"]) == ("alice", "reviewer")
    assert abs(claims["exp"] - (utc_now() + timedelta(hours=2)).timestamp()) < 60


@pytest.mark.usefixtures("home")
def test_a_key_is_shown_once() -> None:
    text = run("key", "create", "the shop", "--days", "30").strip()
    secret = text.split("_", 2)[2]
    listed = run("key", "list")
    assert "the shop" in listed
    assert "good until" in listed
    assert secret not in listed


@pytest.mark.usefixtures("home")
def test_a_revoked_key_is_listed_as_such() -> None:
    for shown in (1, 2, 3):
        parts = run("key", "create", "shop").strip().split("_", 2)
        # Its prefix, or the key up to there, or as a whole.
        given = parts[1] if shown == 1 else "_".join(parts[:shown])
        assert run("key", "revoke", given) == f"{parts[1]} is revoked\n"
    assert run("key", "list").count("revoked") == 3


@pytest.mark.usefixtures("home")
def test_an_unknown_role_is_refused() -> None:
    assert CliRunner().invoke(app, ["token", "alice", "--role", "root"]).exit_code == 2


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    "command",
    ["token alice --hours 100000000", "token alice --hours inf", "key create x --days 4e6"],
)
def test_a_credential_that_would_never_end_is_refused_and_not_recorded(command: str) -> None:
    result = CliRunner().invoke(app, command.split())
    assert isinstance(result.exception, UnreadableTimeError)
    assert run("audit", "list") == ""
