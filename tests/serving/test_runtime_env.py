"""The environment of the cluster: own ports, own files, closed to others."""

from __future__ import annotations

import shlex
import stat
import subprocess
import sys
import time
from pathlib import Path

from registry.settings import RaySettings, Settings
from serving.runtime_env import environment, shell_exports, socket_folder, stop_orphans


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


def test_a_cluster_of_our_own_stays_on_this_machine(tmp_path: Path) -> None:
    variable = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
    assert environment(Settings(home=tmp_path))[variable] == "0"
    joined = Settings(home=tmp_path, ray=RaySettings(address="10.0.0.1:6379"))
    assert variable not in environment(joined)


def test_haproxy_is_started_on_loopback(tmp_path: Path) -> None:
    settings = Settings(
        home=tmp_path, ray=RaySettings(haproxy_metrics_port=29101, haproxy_stats_port=28404)
    )
    wrapper = Path(environment(settings)["RAY_SERVE_HAPROXY_BINARY_PATH"])
    config = tmp_path / "haproxy.cfg"
    config.write_text(
        "frontend prometheus\n    bind :29101\n    mode http\n"
        "frontend http_frontend\n    bind *:8000\n    mode http\n"
        "listen stats\n  bind *:28404\n  mode http\n"
    )
    subprocess.run([wrapper, "-c", "-f", config], check=True, capture_output=True)
    binds = [line.strip() for line in config.read_text().splitlines() if "bind" in line]
    assert binds == ["bind 127.0.0.1:29101", "bind 127.0.0.1:8000", "bind 127.0.0.1:28404"]


def test_a_haproxy_that_outlived_its_cluster_is_stopped(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    config = socket_folder(settings) / "haproxy.cfg"
    code = "import time; time.sleep(60)"
    ours = subprocess.Popen([sys.executable, "-c", code, "-f", str(config)])
    other = subprocess.Popen([sys.executable, "-c", code, "-f", str(tmp_path / "haproxy.cfg")])
    time.sleep(0.2)
    try:
        # A child of ours stays a zombie until it is waited for, so it is killed in the end.
        assert stop_orphans(settings) == [ours.pid]
        assert ours.wait(10) != 0
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_shells_get_the_same(tmp_path: Path) -> None:
    variables = environment(Settings(home=tmp_path / "a folder"))
    lines = [shlex.split(line) for line in shell_exports(variables).splitlines()]
    assert dict(line[1].split("=", 1) for line in lines) == variables
