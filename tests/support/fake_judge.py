"""FakeJudge: an OpenAI-compatible server that gives marks by a function of the answer."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_ANSWER = re.compile(r"\[The assistant's answer\]\n(.*)\n\n\[End", re.DOTALL)


class FakeJudge:
    """What it was asked, and how many asked at once at most."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.most_at_once = 0


@contextmanager
def fake_judge(say: Callable[[str], str], *, status: int = 200) -> Iterator[FakeJudge]:
    """Serve on a free port of loopback; `say` is given an answer and writes the reply."""
    lock = threading.Lock()
    asking = 0

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            nonlocal asking
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                asking += 1
                judge.most_at_once = max(judge.most_at_once, asking)
                judge.asked.append(body)
                judge.keys.add(self.headers["Authorization"])
            found = _ANSWER.search(body["messages"][-1]["content"])
            assert found is not None
            said = say(found.group(1))
            with lock:
                asking -= 1
            message = {"role": "assistant", "content": said}
            self._send({"choices": [{"message": message}]})

        def _send(self, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except OSError:
                """Whoever asked has given up."""

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        judge = FakeJudge(f"http://127.0.0.1:{server.server_port}/v1")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield judge
        finally:
            server.shutdown()
            thread.join()
