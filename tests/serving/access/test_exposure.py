"""The endpoint is not opened to the network while it asks nobody who they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from registry.errors import SettingsError
from registry.settings import ServingSettings, Settings, load_settings
from registry.settings_access import AuthSettings
from serving.access.exposure import is_loopback, refuse_exposed


def on(host: str, *, auth: bool = False) -> Settings:
    return Settings(serving=ServingSettings(host=host), auth=AuthSettings(enabled=auth))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_authentication(host: str) -> None:
    assert is_loopback(host)
    refuse_exposed(on(host))


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "10.0.0.1", "192.168.1.5", "no-such-host.invalid", ""]
)
def test_the_network_does(host: str) -> None:
    with pytest.raises(SettingsError, match="KALIMTAK_AUTH__ENABLED"):
        refuse_exposed(on(host))
    refuse_exposed(on(host, auth=True))


@pytest.mark.parametrize("command", [["flows.cli", "up"], ["serving.app"]])
def test_nothing_is_started_that_would_be_open(tmp_path: Path, command: list[str]) -> None:
    environment = {"KALIMTAK_HOME": str(tmp_path), "KALIMTAK_SERVING__HOST": "0.0.0.0"}
    result = subprocess.run(
        [sys.executable, "-m", *command],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "KALIMTAK_AUTH__ENABLED=true" in result.stderr


@pytest.mark.parametrize("secret", ["changeme", "short-but-random-8f2k", "a" * 64, "abcabcabc" * 8])
def test_a_weak_secret_is_refused_without_being_told(secret: str) -> None:
    with pytest.raises(SettingsError, match="weak") as refused:
        load_settings({"KALIMTAK_AUTH__SECRETS__MAIN": secret})
    assert secret not in str(refused.value)


def test_a_signing_key_must_be_among_the_secrets() -> None:
    with pytest.raises(SettingsError, match="signing_key 'gone'"):
        load_settings({"KALIMTAK_AUTH__SIGNING_KEY": "gone"})


def test_secrets_are_not_shown() -> None:
    secret = "0123456789abcdef" * 2
    settings = load_settings({"KALIMTAK_AUTH__SECRETS__MAIN": secret})
    assert secret not in repr(settings)
