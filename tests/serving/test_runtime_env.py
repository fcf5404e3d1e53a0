"""The environment of the cluster: own ports, own files, closed to others."""

from __future__ import annotations

import shlex
import stat
from pathlib import Path

from registry.settings import RaySettings, ServingSettings, Settings
from serving.haproxy import socket_folder
from serving.runtime_env import environment, shell_exports


def mode(path: str | Path) -> int:
    return stat.S_IMODE(Path(path).stat().st_mode)


def test_the_token_is_made_once_and_is_the_owners_alone(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    first = environment(settings)
    token = Path(first["RAY_AUTH_TOKEN_PATH"]).read_text()
    assert len(token) == 64
    assert mode(first["RAY_AUTH_TOKEN_PATH"]) == 0o600
    assert environment(settings) == first
    assert Path(first["RAY_AUTH_TOKEN_PATH"]).read_text() == token
    assert mode(socket_folder(settings)) == 0o700


def test_two_installations_share_no_file(tmp_path: Path) -> None:
    one, two = (environment(Settings(home=tmp_path / name)) for name in ("a", "b"))
    files = {name for name, value in one.items() if value.startswith("/")}
    assert len(files) >= 7
    assert all(one[name] != two[name] for name in files)


def test_other_settings_change_nothing_of_a_cluster_that_runs(tmp_path: Path) -> None:
    running = Settings(home=tmp_path, serving=ServingSettings(host="0.0.0.0"))
    started = Path(environment(running)["RAY_SERVE_HAPROXY_BINARY_PATH"])
    text = started.read_text()
    another_shell = environment(Settings(home=tmp_path))
    assert another_shell["RAY_SERVE_HAPROXY_BINARY_PATH"] != str(started)
    assert started.read_text() == text
    assert "0.0.0.0" in text


def test_a_cluster_of_our_own_stays_on_this_machine(tmp_path: Path) -> None:
    stays = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "GLOO_SOCKET_IFNAME": "lo"}
    assert stays.items() <= environment(Settings(home=tmp_path)).items()
    joined = Settings(home=tmp_path, ray=RaySettings(address="10.0.0.1:6379"))
    assert stays.keys().isdisjoint(environment(joined))


def test_shells_get_the_same(tmp_path: Path) -> None:
    variables = environment(Settings(home=tmp_path / "a folder"))
    lines = [shlex.split(line) for line in shell_exports(variables).splitlines()]
    assert dict(line[1].split("=", 1) for line in lines) == variables
