"""What Prometheus and the log are told, and what they are not."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import cast

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from registry.interactions import Rated
from serving.api.app import create_api
from serving.api.service import make_service
from serving.jobs import Models
from serving.logs import FLUSH_S, JsonLines, Lines, PlainLines
from serving.metrics import Metrics, clean_stale, metrics_folder
from tests.serving.conftest import Installation
from tests.serving.router import Router, running_router

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
async def router(installation: Installation) -> AsyncIterator[Router]:
    async with running_router(installation.settings) as router:
        yield router


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("serving")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield stream
    logger.removeHandler(handler)
    logger.setLevel(before)


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(text: str, name: str, **labels: str) -> float:
    return sum(
        value
        for (found, its), value in samples(text).items()
        if found == name and labels.items() <= dict(its).items()
    )


async def test_requests_tokens_and_feedback_are_counted(router: Router) -> None:
    answer = (await router.generate(text="Write a secret email", user_id="user-123")).json()
    await router.generate(text="")
    said = {"interaction_id": answer["interaction_id"], "score": 5}
    await router.client.post("/api/feedback", json=said)
    await router.client.get("/nowhere/user-123")
    response = await router.client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    text = response.text
    generate = {"route": "/api/generate"}
    good = {"status": "200", "role": "default", "version": "base", "workload": "default"}
    assert total(text, "kalimtak_requests_total", **generate, **good) == 1
    assert total(text, "kalimtak_requests_total", **generate, status="422") == 1
    assert total(text, "kalimtak_requests_total", route="unrouted", status="404") == 1
    assert total(text, "kalimtak_request_seconds_count", **generate) == 2
    assert total(text, "kalimtak_tokens_total") == answer["tokens_used"]
    assert total(text, "kalimtak_queue_seconds_count", role="default") == 1
    assert total(text, "kalimtak_batch_rows_sum", role="default") == 1
    assert total(text, "kalimtak_feedback_total", version="base", sign="positive") == 1
    assert total(text, "kalimtak_record_batch_sum", into="database") == 2
    assert total(text, "kalimtak_build_info") == 1
    assert ("kalimtak_share_configured", (("workload", "default"),)) in samples(text)
    assert ("kalimtak_spool_records", ()) in samples(text)
    for private in ("secret", "user-123"):
        assert private not in text


@pytest.mark.parametrize("streaming", [{}, {"stream_options": {"include_usage": True}}])
async def test_each_of_several_answers_to_one_request_is_counted(
    router: Router, streaming: dict[str, object]
) -> None:
    words = [{"role": "user", "content": "hello"}]
    asked = {"model": "default", "messages": words, "n": 3, "max_tokens": 5, "temperature": 0}
    response = await router.client.post(
        "/v1/chat/completions", json={**asked, **streaming, "stream": bool(streaming)}
    )
    text = (await router.client.get("/metrics")).text
    (used,) = re.findall(r'"completion_tokens": ?(\d+)', response.text)
    assert total(text, "kalimtak_tokens_total", direction="out") == int(used) >= 3
    for name in ("queue_seconds", "first_token_seconds", "batch_rows"):
        assert total(text, f"kalimtak_{name}_count", role="default") == 3


OTHER_PROCESS = """
import sys
from pathlib import Path
from registry.interactions import Rated
from serving.metrics import Metrics
metrics = Metrics(Path(sys.argv[1]))
metrics.rated(Rated("default", "v1", 1))
metrics.spooled(records=7, size_bytes=70)
"""


def test_processes_are_summed_and_the_dead_have_no_spool(tmp_path: Path) -> None:
    folder = metrics_folder(tmp_path)
    metrics = Metrics(folder)
    metrics.rated(Rated("default", "v1", 1))
    metrics.spooled(records=2, size_bytes=20)
    subprocess.run([sys.executable, "-c", OTHER_PROCESS, folder], check=True)
    text = metrics.text().decode()
    assert total(text, "kalimtak_feedback_total", version="v1", sign="positive") == 2
    assert total(text, "kalimtak_spool_records") == 2
    clean_stale(folder)
    assert total(metrics.text().decode(), "kalimtak_feedback_total") == 1
    assert {path.stem.rpartition("_")[2] for path in folder.iterdir()} == {str(os.getpid())}


async def test_ids_are_taken_made_and_returned(router: Router, log: io.StringIO) -> None:
    sent = {"x-request-id": "abc-1", "traceparent": TRACE}
    response = await router.client.post("/api/generate", json={"text": "Hi"}, headers=sent)
    assert response.headers["x-request-id"] == "abc-1"
    assert response.headers["traceparent"] == TRACE
    made = []
    for bad in ("", "x" * 129, 'a"b', "a b"):
        response = await router.client.get("/healthz", headers={"x-request-id": bad})
        made.append(response.headers["x-request-id"])
        assert made[-1] != bad
    assert len(set(made)) == 4
    nonsense = {"traceparent": "00-" + "0" * 32 + "-" + "0" * 16 + "-01"}
    assert "traceparent" not in (await router.client.get("/healthz", headers=nonsense)).headers
    assert "x-request-id" in (await router.client.get("/nowhere")).headers
    first, last = (json.loads(line) for line in log.getvalue().splitlines())
    assert first["message"] == "request"
    assert (first["request_id"], first["traceparent"]) == ("abc-1", TRACE)
    assert (first["method"], first["route"], first["status"]) == ("POST", "/api/generate", 200)
    assert (first["workload"], first["version"], first["role"]) == ("default", "base", "default")
    assert first["duration_ms"] > 0
    assert last["status"] == 404


async def test_the_log_holds_no_text_no_user_and_no_credential(
    router: Router, log: io.StringIO
) -> None:
    words = [{"role": "user", "content": "canary in a chat"}]
    answer = (await router.generate(text="canary text", user_id="canary-user")).json()
    about = {"interaction_id": answer["interaction_id"]}
    for path, sent in (
        ("/v1/chat/completions", {"model": "kalimtak", "messages": words, "user": "canary-user"}),
        ("/v1/chat/completions", {"model": "canary", "messages": words}),
        ("/api/generate", {"text": "canary", "model_version": "canary-version"}),
        ("/api/generate", {"text": ["canary"], "canary": 1}),
        ("/api/feedback", {**about, "score": 1, "feedback_text": "canary"}),
        ("/api/feedback", {**about, "corrected_output": "canary"}),
        ("/api/interactions", {"input_text": "canary", "model_output": "canary"}),
        ("/api/admin/rollback", {"reason": "canary"}),
    ):
        shown = {"Authorization": "Bearer canary", "Idempotency-Key": "canary-key"}
        await router.client.post(path, json=sent, headers=shown, params={"canary": "canary"})
    await router.client.get("/api/history/canary-user")
    assert "/api/history/{user_id}" in log.getvalue()
    assert len(log.getvalue().splitlines()) == 10
    assert "canary" not in log.getvalue().lower()


async def test_an_unexpected_failure_has_an_id_and_a_line(
    router: Router, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_args: object, **_kwargs: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(router.service.recorder, "feedback", fail)
    said = {"interaction_id": "x", "score": 5}
    response = await router.client.post("/api/feedback", json=said)
    assert response.status_code == 500
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    failure = next(line for line in lines if "exception" in line)
    assert "ZeroDivisionError" in failure["exception"]
    assert failure["request_id"] == response.headers["x-request-id"]
    assert lines[-1]["status"] == 500


async def test_behind_serve_an_id_is_returned_once(installation: Installation) -> None:
    """Ray Serve returns what it was sent; only an id that we do not take is answered by ours."""
    service = make_service(installation.settings, lambda _state: _nobody(), replica_id="r")
    api = create_api(service, behind_serve=True)
    transport = httpx.ASGITransport(api)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        taken = await client.get("/healthz", headers={"x-request-id": "abc-1"})
        refused = await client.get("/healthz", headers={"x-request-id": "a b"})
    service.database.close()
    assert "x-request-id" not in taken.headers
    assert "x-request-id" in refused.headers


def _nobody() -> Models:
    return cast(Models, None)


def test_plain_lines_are_for_people() -> None:
    record = logging.LogRecord("serving", logging.INFO, "", 0, "request", None, None)
    record.fields = {"status": 200, "role": None}
    assert PlainLines("%(levelname)s %(message)s").format(record) == "INFO request status=200"


def _line(**fields: object) -> logging.LogRecord:
    record = logging.LogRecord("serving.requests", logging.INFO, "", 0, "request", (), None)
    record.fields = fields
    return record


async def test_lines_about_requests_are_written_several_at_a_time() -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    lines.setFormatter(PlainLines("%(message)s"))
    for number in range(3):
        lines.handle(_line(status=200 + number))
    assert stream.getvalue() == ""
    await asyncio.sleep(2 * FLUSH_S)
    assert stream.getvalue().splitlines() == [f"request status={200 + n}" for n in range(3)]


def test_any_other_line_is_written_at_once_and_none_is_lost_without_a_loop() -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    lines.setFormatter(PlainLines("%(message)s"))
    lines.handle(_line(status=200))
    warning = logging.LogRecord("serving", logging.WARNING, "", 0, "the disk is full", None, None)
    lines.handle(warning)
    assert stream.getvalue().splitlines() == ["request status=200", "the disk is full"]
    lines.handle(_line(status=201))
    lines.close()
    lines.flush()
    assert stream.getvalue().splitlines()[-1] == "request status=201"
