"""FakeVllm: an HTTP server that speaks what the engine uses of vLLM's interface.

It repeats the last message word by word, with the adapter's name before it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

BASE = "base"
CONTEXT_WORDS = 50


class FakeVllm:
    """What it holds and was asked; `abandoned` counts answers whose caller went away."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.adapters: dict[str, str] = {}
        self.asked: list[dict[str, Any]] = []
        self.abandoned = 0
        self.traced: list[str | None] = []
        """The trace context of each question."""
        self.garbage: bytes | None = None
        """A line that it writes instead of an answer."""
        self.refuses: str | None = None
        """What its template says of every conversation."""
        self.busy = False
        """Whether it refuses work."""


@contextmanager
def fake_vllm() -> Iterator[FakeVllm]:
    """Serve on a free port of loopback for the time of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            verb = self.path.removeprefix("/v1/")
            if verb == "load_lora_adapter":
                self._load(body["lora_name"], body["lora_path"])
            elif verb == "unload_lora_adapter":
                found = fake.adapters.pop(body["lora_name"], None)
                self._say(200 if found else 404, "Success" if found else "cannot be found")
            else:
                self._chat(body)

        def _load(self, name: str, path: str) -> None:
            if name in fake.adapters:
                self._say(400, f"The lora adapter '{name}' has already been loaded.")
            elif not (Path(path) / "adapter_config.json").is_file():
                self._say(404, f"No adapter found for {path}")
            else:
                fake.adapters[name] = path
                self._say(200, "Success")

        def _chat(self, body: dict[str, Any]) -> None:
            fake.asked.append(body)
            fake.traced.append(self.headers["traceparent"])
            words = body["messages"][-1]["content"].split(" ")
            if fake.busy:
                self._say(503, "busy")
            elif body["model"] not in (BASE, *fake.adapters):
                self._say(404, f"The model `{body['model']}` does not exist.")
            elif fake.refuses is not None:
                self._say(400, fake.refuses)
            elif not 0 < body["top_p"] <= 1:
                self._say(400, f"top_p must be in (0, 1], got {body['top_p']}.")
            elif len(words) > CONTEXT_WORDS:
                self._say(400, f"This model's maximum context length is {CONTEXT_WORDS} tokens.")
            else:
                self._answer(body, [f"{body['model']}:", *words])

        def _answer(self, body: dict[str, Any], words: list[str]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            written = words[: body["max_tokens"]]
            finish = "length" if len(written) < len(words) else "stop"
            try:
                if fake.garbage is not None:
                    self.wfile.write(fake.garbage + b"\n\n")
                    return
                for word in written:
                    choice: dict[str, Any] = {"delta": {"content": word + " "}}
                    if body.get("logprobs"):
                        entry = {"token": word, "logprob": -0.5}
                        choice["logprobs"] = {"content": [entry | {"top_logprobs": [entry]}]}
                    self._event({"choices": [choice]})
                    while word == "forever":
                        self._event({"choices": [choice]})
                        time.sleep(0.005)
                self._event({"choices": [{"delta": {}, "finish_reason": finish}]})
                usage = {"prompt_tokens": len(words), "completion_tokens": len(written)}
                self._event({"choices": [], "usage": usage})
                self.wfile.write(b"data: [DONE]\n\n")
            except OSError:
                fake.abandoned += 1

        def _event(self, event: dict[str, Any]) -> None:
            # As vLLM's own: no character is escaped that JSON lets stand.
            text = json.dumps(event, ensure_ascii=False)
            self.wfile.write(b"data: " + text.encode() + b"\n\n")

        def _say(self, status: int, message: str) -> None:
            body = {"error": {"message": message, "code": status}} if status != 200 else message
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        fake = FakeVllm(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()
