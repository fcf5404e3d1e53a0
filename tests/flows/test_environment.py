"""Which Ray and which Prefect are used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flows import environment
from registry.settings import Settings


def test_by_default_our_own_server_and_no_cluster(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert environment.prefect_url(settings) == "http://127.0.0.1:4200/api"
    assert environment.ray_address(settings) is None
    assert environment.foreign_ray(settings) is None


def test_the_environment_names_servers_of_ones_own(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect.example/api")
    monkeypatch.setenv("RAY_ADDRESS", "ray.example:6379")
    assert environment.prefect_url(settings) == "http://prefect.example/api"
    assert environment.ray_address(settings) == "ray.example:6379"
    assert environment.ray_environment(settings) == {"RAY_ADDRESS": "ray.example:6379"}


def test_the_address_of_our_own_ray_is_not_a_foreign_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", environment.own_ray(settings))
    assert environment.foreign_ray(settings) is None
    assert environment.ray_address(settings) == "127.0.0.1:26379"


def test_rays_sockets_fit_into_their_longest_path(tmp_path: Path, settings: Settings) -> None:
    deep = settings.model_copy(update={"home": tmp_path / ("deep" * 30)})
    session = "session_2026-11-21_00-20-34_123456_1234567/sockets/plasma_store.12345"
    assert len(str(environment.ray_temp_dir(deep) / session)) <= 107


def test_what_is_set_already_is_left_alone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DO_NOT_TRACK", "0")
    for name in {
        **environment.prefect_environment(settings),
        **environment.ray_environment(settings),
    }:
        if name != "DO_NOT_TRACK":
            monkeypatch.setenv(name, "kept")
    environment.apply(settings)
    assert os.environ["DO_NOT_TRACK"] == "0"


def test_a_process_elsewhere_reads_the_same_settings_file(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KALIMTAK_CONFIG", raising=False)
    assert environment.settings_environment(settings) == {"KALIMTAK_HOME": str(settings.home)}
    (tmp_path / "kalimtak.toml").touch()
    found = environment.settings_environment(settings)
    assert found["KALIMTAK_CONFIG"] == str(tmp_path / "kalimtak.toml")
