"""FakePrefect: the two routes of a Prefect server that start a deployment."""

from __future__ import annotations

import json
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DEPLOYMENTS = ("curate/daily", "retrain/weekly")


class FakePrefect:
    """What was asked to run: deployment and parameters."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.started: list[tuple[str, dict[str, Any]]] = []
        self.password: str | None = None
        """What callers must show, as user and password."""


@contextmanager
def fake_prefect() -> Iterator[FakePrefect]:
    """Serve on a free port of loopback for the time of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            login = b64encode((server_side.password or "").encode()).decode()
            if server_side.password and self.headers["Authorization"] != f"Basic {login}":
                self._send(401, {"exception_message": "Unauthorized"})
                return
            name = self.path.removeprefix("/api/deployments/name/")
            if name in DEPLOYMENTS:
                self._send(200, {"id": name.replace("/", "-")})
            else:
                self._send(404, {"detail": "Deployment not found"})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert body["state"] == {"type": "SCHEDULED"}
            deployment = self.path.split("/")[3].replace("-", "/")
            server_side.started.append((deployment, body["parameters"]))
            self._send(201, {"id": f"run-{len(server_side.started)}", "name": "fast-owl"})

        def _send(self, status: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server_side = FakePrefect(f"http://127.0.0.1:{server.server_port}/api")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server_side
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
