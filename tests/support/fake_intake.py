"""FakeIntake: an HTTP server that keeps what it is sent, and fails as a test tells it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Failure:
    """How one request is answered instead; status 0 hangs up."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)


class FakeIntake:
    """What came in, in order; `failures` are used up first, one for each request."""

    def __init__(self) -> None:
        self.url = ""
        self.failures: list[Failure] = []
        self.refuse: dict[str, int] = {}
        """Interaction id → status of its result."""
        self.max_bytes = 10**9
        self.requests: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.stored: dict[str, dict[str, Any]] = {}
        self.feedback: list[dict[str, Any]] = []
        self.open = threading.Event()
        """While it is cleared, requests wait."""
        self.open.set()

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The body of a successful answer."""
        if path == "/api/feedback":
            self.feedback.append(body)
            return {"status": "success"}
        results = []
        for index, item in enumerate(body.get("interactions", [body])):
            status = self.refuse.get(item["id"])
            result = {"index": index, "interaction_id": item["id"], "status": "created"}
            if status is not None:
                error = {"status": status, "detail": "no", "field": None}
                result |= {"status": "refused", "error": error}
            elif item["id"] in self.stored:
                result["status"] = "duplicate"
            else:
                self.stored[item["id"]] = item
            results.append(result)
        return {"results": results}


@contextmanager
def fake_intake() -> Iterator[FakeIntake]:
    """Serve on a free port of loopback for the time of the block."""
    intake = FakeIntake()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            intake.open.wait(20)
            body = json.loads(data)
            with lock:
                intake.requests.append((self.path, body, dict(self.headers)))
                if len(data) > intake.max_bytes:
                    failure: Failure | None = Failure(413)
                else:
                    failure = intake.failures.pop(0) if intake.failures else None
                told = (
                    {"detail": "not now"} if failure else intake.answer(self.path, json.loads(data))
                )
            if failure is not None and failure.status == 0:
                self.close_connection = True
                return
            self._send(failure.status if failure else 200, told, failure.headers if failure else {})

        def _send(self, status: int, told: dict[str, Any], headers: dict[str, str]) -> None:
            content = json.dumps(told).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    intake.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield intake
    finally:
        intake.open.set()
        server.shutdown()
        thread.join()
        server.server_close()
