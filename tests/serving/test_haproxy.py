"""HAProxy keeps to loopback, believes no client, and says in our own shapes what it refuses."""

from __future__ import annotations

import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import openai
import pytest
from ray.serve._private.haproxy_templates import HAPROXY_CONFIG_TEMPLATE

from registry.settings import RaySettings, Settings
from serving.haproxy import REFUSALS, socket_folder, stop_orphans
from serving.problems import ProblemError
from serving.runtime_env import environment
from tests.support.network import free_ports


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


CONFIG = """\
global
    log 127.0.0.1:{syslog} local0 info
    tune.bufsize {bufsize}
defaults
    mode http
    timeout client 3600s
    timeout server 3600s
    timeout connect 5s
    errorfile 502 {errorfile}
    errorfile 503 {errorfile}
    errorfile 504 {errorfile}
    log global
    option httplog
    option abortonclose
    option splice-request
    option splice-response
frontend prometheus
    bind :{metrics}
    mode http
frontend http_frontend
    bind *:{port}
    mode http
    use_backend told if {{ path / }}
    use_backend gone if {{ path_end gone }}
    use_backend silent if {{ path_end silent }}
    use_backend slow if {{ path_end slow }}
    use_backend fallback if {{ path_beg /fallback }}
    default_backend default_backend
backend default_backend
    http-request return status 404 content-type text/plain lf-string "Path '%[path]' not found."
listen stats
  bind *:{stats}
  mode http
backend told
    http-request return status 200 content-type text/plain lf-string "{told}"
backend gone
    server one 127.0.0.1:{gone}
backend silent
    server one 127.0.0.1:{silent}
backend fallback
    server one 127.0.0.1:{fallback}
backend slow
    server one 127.0.0.1:{slow}
"""
"""As Ray writes it, in short."""


TOLD = "%[req.hdr(x-forwarded-for)] %[req.hdr(x-request-id)]"


@dataclass(frozen=True)
class Haproxy:
    """Our wrapper, and a configuration as Ray writes it."""

    wrapper: str
    config: Path
    port: int
    metrics: int
    stats: int
    silent: int
    """Where a server hangs up before it has answered."""
    fallback: int
    slow: int
    """Where a server does not answer."""
    syslog: int

    def lines(self) -> list[str]:
        return [line.strip() for line in self.config.read_text().splitlines()]


@pytest.fixture
def haproxy(tmp_path: Path) -> Haproxy:
    stats, port, metrics, gone, silent, slow, syslog = free_ports(7)
    settings = Settings(
        home=tmp_path, ray=RaySettings(haproxy_metrics_port=metrics, haproxy_stats_port=stats)
    )
    variables = environment(settings)
    config, errorfile = tmp_path / "haproxy.cfg", tmp_path / "500.http"
    errorfile.write_text("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")
    config.write_text(
        CONFIG.format(
            port=port,
            metrics=metrics,
            stats=stats,
            gone=gone,
            silent=silent,
            slow=slow,
            syslog=syslog,
            fallback=variables["RAY_SERVE_FALLBACK_PROXY_HTTP_PORT"],
            bufsize=variables["RAY_SERVE_HAPROXY_TUNE_BUFSIZE"],
            errorfile=errorfile,
            told=TOLD,
        )
    )
    wrapper = variables["RAY_SERVE_HAPROXY_BINARY_PATH"]
    fallback = int(variables["RAY_SERVE_FALLBACK_PROXY_HTTP_PORT"])
    return Haproxy(wrapper, config, port, metrics, stats, silent, fallback, slow, syslog)


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


@contextmanager
def served(server: socketserver.BaseServer) -> Iterator[None]:
    """It answers, in a thread of its own, while the block lasts."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield
        server.shutdown()
        thread.join()


@pytest.fixture
def _silent(haproxy: Haproxy) -> Iterator[None]:
    """A router that dies with each request."""

    class HangUp(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1)

    with served(socketserver.TCPServer(("127.0.0.1", haproxy.silent), HangUp)):
        yield


@pytest.mark.usefixtures("_silent")
@pytest.mark.parametrize(("path", "status"), [("/any", 503), ("/gone", 503), ("/silent", 502)])
def test_what_haproxy_refuses_it_says_in_the_shapes_of_our_own_errors(
    running: str, path: str, status: int
) -> None:
    response = httpx.get(f"{running}{path}")
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    ours = ProblemError(status, REFUSALS[status])
    assert response.json() == ours.body() | ours.openai_body()
    assert response.headers.get("retry-after") == ("1" if status == 503 else None)


@pytest.fixture
def _fallback(haproxy: Haproxy) -> Iterator[None]:
    """Serve's own proxy, asked where there is no router: it says so, or passes an answer on."""

    class FakeProxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            kind = "text/plain; charset=utf-8" if self.path.endswith("gone") else "application/json"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            """Nothing: it would be told on standard error."""

    with served(HTTPServer(("127.0.0.1", haproxy.fallback), FakeProxy)):
        yield


@pytest.mark.usefixtures("_fallback")
def test_what_serves_own_proxy_no_longer_knows_may_be_asked_again(running: str) -> None:
    gone = httpx.get(f"{running}/fallback/any/gone")
    assert (gone.status_code, gone.headers["retry-after"]) == (503, "1")
    assert gone.json()["detail"] == REFUSALS[503]
    assert httpx.get(f"{running}/fallback/ours").status_code == 404


def test_openais_client_repeats_what_nobody_takes(running: str) -> None:
    asked: list[httpx.Request] = []
    http = openai.DefaultHttpxClient(event_hooks={"request": [asked.append]})
    with (
        openai.OpenAI(base_url=f"{running}/v1", api_key="k", http_client=http) as client,
        pytest.raises(openai.InternalServerError, match="no router takes requests now"),
    ):
        client.with_options(max_retries=1).models.list()
    assert len(asked) == 2


def test_a_client_that_leaves_is_seen_whose_body_came_after_its_headers(
    haproxy: Haproxy, running: str
) -> None:
    """As the clients of Python send them: the router then ends what it does for nobody."""
    host = running.removeprefix("http://")
    head = f"POST /slow HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\n\r\n"
    with socket.create_server(("127.0.0.1", haproxy.slow)) as listener:
        listener.settimeout(20)
        with socket.create_connection(("127.0.0.1", haproxy.port)) as client:
            client.sendall(head.encode())
            router = listener.accept()[0]
            time.sleep(0.05)
            client.sendall(b"hello")
            received = b""
            while not received.endswith(b"hello"):
                received += router.recv(4096)
        router.settimeout(20)
        with router, suppress(ConnectionResetError):
            assert router.recv(4096) == b""


def test_nobody_is_told_who_asks_for_what(haproxy: Haproxy, running: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as syslog:
        syslog.bind(("127.0.0.1", haproxy.syslog))
        httpx.get(f"{running}/api/history/ann")
        httpx.get(running)
        syslog.setblocking(False)
        with pytest.raises(BlockingIOError):
            syslog.recv(4096)


def test_ray_still_writes_what_is_edited() -> None:
    lines = [line.strip() for line in HAPROXY_CONFIG_TEMPLATE.splitlines()]
    assert {"defaults", "frontend http_frontend", "bind :{{ config.metrics_port }}"} <= set(lines)
    assert [line[:14] for line in lines if line.startswith("errorfile ")] == [
        "errorfile 502 ",
        "errorfile 503 ",
        "errorfile 504 ",
    ]
    assert {"option splice-request", "option splice-response"} <= set(lines)
    assert "log {{ config.log_target }} local0 info" in lines
    (unserved,) = [line for line in lines if "return status 404" in line]
    assert lines[lines.index(unserved) - 1] == "backend default_backend"


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
