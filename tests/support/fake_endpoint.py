"""FakeEndpoint: a small HTTP server that answers like the serving application, by a rule."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Rule = Callable[[dict[str, Any]], str]
"""From the body of a generate request to the model's output."""


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # more may connect at once than the five of the default


class FakeEndpoint:
    """What was asked and said, in the order it came."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[dict[str, Any]] = []
        self.feedback: list[dict[str, Any]] = []


@contextmanager
def fake_endpoint(rule: Rule, *, status: int = 200) -> Iterator[FakeEndpoint]:
    """Serve on a free port of loopback for the time of the block; `status` answers generate."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                answer = self._answer(body)
            data = json.dumps(answer).encode()
            self.send_response(status if self.path == "/api/generate" else 200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
            if self.path == "/api/feedback":
                endpoint.feedback.append(body)
                return {"status": "ok", "message": ""}
            endpoint.asked.append(body)
            output = rule(body)
            return {
                "model_output": output,
                "structured_prompt": output,
                "tokens_used": 1,
                "interaction_id": f"i{len(endpoint.asked)}",
                "model_version": body.get("model_version") or "embedded",
            }

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = _Server(("127.0.0.1", 0), Handler)
    endpoint = FakeEndpoint(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
