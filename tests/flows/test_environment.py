"""Which Ray and which Prefect are used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flows import environment
from flows.demo.people import examine, held_out_requests
from registry.settings import Settings, load_settings
from tests.support.fake_endpoint import fake_endpoint
from tests.support.network import free_port


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


@pytest.mark.parametrize("empty", ["RAY_ADDRESS", "PREFECT_API_URL"])
def test_a_variable_that_is_empty_names_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, empty: str
) -> None:
    monkeypatch.setenv(empty, "")
    assert environment.foreign_ray(settings) is None
    assert environment.ray_address(settings) is None
    assert environment.prefect_url(settings) == "http://127.0.0.1:4200/api"
    assert "RAY_ADDRESS" not in environment.of_processes(settings)
    environment.apply(settings)
    assert os.environ["PREFECT_API_URL"] == "http://127.0.0.1:4200/api"


def test_an_empty_address_of_ray_is_our_own_cluster(settings: Settings) -> None:
    ray = settings.ray.model_copy(update={"address": ""})
    own = environment.ray_environment(settings.model_copy(update={"ray": ray}))
    assert own == environment.ray_environment(settings)


def test_a_proxy_is_not_asked_for_our_own_addresses(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", "intranet.example, 127.0.0.1")
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    serving = settings.serving.model_copy(update={"host": "0.0.0.0"})
    environment.apply(settings.model_copy(update={"serving": serving}))
    hosts = "intranet.example,127.0.0.1,localhost,::1,0.0.0.0"
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == hosts
    with fake_endpoint(lambda _: "Role: x") as endpoint:
        (answer,) = examine(endpoint.url, held_out_requests(1, 1), version=None)
    assert answer.output == "Role: x"


def test_a_star_that_keeps_all_from_the_proxy_stands_alone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "intranet.example")
    monkeypatch.setenv("NO_PROXY", "*")
    found = environment.of_processes(settings)
    assert (found["no_proxy"], found["NO_PROXY"]) == ("*", "*")
    monkeypatch.setenv("NO_PROXY", "10.0.0.1")
    assert environment.of_processes(settings)["no_proxy"].startswith("intranet.example,10.0.0.1,")


def test_a_process_elsewhere_reads_the_same_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kalimtak.toml").write_text("colour = 1")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("KALIMTAK_DATABASE_URL", "sqlite:///data/k.db")
    Path("kalimtak.toml").write_text('[auth]\naudience = "x"\njwks_file = "keys.json"')
    here = load_settings()
    for name, value in environment.settings_environment(here).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_settings() == here
    assert here.database_url == f"sqlite:///{tmp_path}/here/data/k.db"
    assert environment.settings_environment(here)["KALIMTAK_DIRECTORY"] == f"{tmp_path}/here"
