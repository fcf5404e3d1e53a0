"""The environment of the cluster: own ports, own files, closed to others."""

from __future__ import annotations

import shlex
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from registry.settings import RaySettings, ServingSettings, Settings
from serving.runtime_env import environment, shell_exports, socket_folder, stop_orphans
from tests.support.network import free_port


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


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


CONFIG = """\
global
    tune.bufsize {bufsize}
defaults
    mode http
    timeout client 3600s
    timeout server 3600s
    timeout connect 5s
frontend prometheus
    bind :{metrics}
    mode http
frontend http_frontend
    bind *:{port}
    mode http
    default_backend told
listen stats
  bind *:{stats}
  mode http
backend told
    http-request return status 200 content-type text/plain lf-string "{told}"
"""


TOLD = "%[req.hdr(x-forwarded-for)] %[req.hdr(x-request-id)]"


@dataclass(frozen=True)
class Haproxy:
    """Our wrapper, and a configuration as Ray writes it."""

    wrapper: str
    config: Path
    port: int
    metrics: int
    stats: int

    def lines(self) -> list[str]:
        return [line.strip() for line in self.config.read_text().splitlines()]


@pytest.fixture
def haproxy(tmp_path: Path) -> Haproxy:
    port, metrics, stats = free_port(), free_port(), free_port()
    settings = Settings(
        home=tmp_path, ray=RaySettings(haproxy_metrics_port=metrics, haproxy_stats_port=stats)
    )
    variables = environment(settings)
    config = tmp_path / "haproxy.cfg"
    bufsize = variables["RAY_SERVE_HAPROXY_TUNE_BUFSIZE"]
    config.write_text(
        CONFIG.format(port=port, metrics=metrics, stats=stats, bufsize=bufsize, told=TOLD)
    )
    return Haproxy(variables["RAY_SERVE_HAPROXY_BINARY_PATH"], config, port, metrics, stats)


@pytest.fixture
def running(haproxy: Haproxy) -> Iterator[str]:
    """The address of one that runs."""
    process = subprocess.Popen([haproxy.wrapper, "-db", "-f", haproxy.config])
    while not answers(haproxy.port):
        assert process.poll() is None
        time.sleep(0.02)
    yield f"http://127.0.0.1:{haproxy.port}"
    process.kill()
    process.wait()


def test_haproxy_is_started_on_loopback(haproxy: Haproxy) -> None:
    subprocess.run([haproxy.wrapper, "-c", "-f", haproxy.config], check=True, capture_output=True)
    binds = [line for line in haproxy.lines() if "bind" in line]
    ports = (haproxy.metrics, haproxy.port, haproxy.stats)
    assert binds == [f"bind 127.0.0.1:{port}" for port in ports]


def test_haproxy_waits_for_nobodys_headers(haproxy: Haproxy) -> None:
    subprocess.run([haproxy.wrapper, "-c", "-f", haproxy.config], check=True, capture_output=True)
    lines = haproxy.lines()
    defaults = lines[lines.index("defaults") : lines.index("frontend prometheus")]
    assert {"timeout http-request 15s", "timeout http-keep-alive 90s"} <= set(defaults)


def test_serve_leaves_it_to_the_router_to_notice_who_has_left(haproxy: Haproxy) -> None:
    subprocess.run([haproxy.wrapper, "-c", "-f", haproxy.config], check=True, capture_output=True)
    assert "http-request set-header x-request-disconnect-disabled ?1" in haproxy.lines()


def test_a_client_cannot_name_an_address_of_its_own(running: str) -> None:
    forged = [("X-Forwarded-For", "6.6.6.6"), ("x-forwarded-for", "7.7.7.7")]
    assert httpx.get(running, headers=forged).text == "127.0.0.1 "


@pytest.mark.parametrize("name", ["hello world", "a,b", "x" * 129, "é"])
def test_an_id_that_is_none_does_not_reach_who_would_return_it(running: str, name: str) -> None:
    assert httpx.get(running, headers={"X-Request-ID": "order:7/8"}).text.endswith(" order:7/8")
    assert httpx.get(running, headers={"X-Request-ID": name.encode()}).text == "127.0.0.1 "


def test_haproxy_refuses_what_does_not_fit_into_its_buffer(running: str) -> None:
    assert httpx.get(running, headers={"x": "y" * 14_000}).status_code == 200
    assert httpx.get(running, headers={"x": "y" * 17_000}).status_code == 400
    assert httpx.get(f"{running}/{'x' * 17_000}").status_code == 400


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
