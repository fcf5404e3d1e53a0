"""Stopping in order ends what was begun: whole answers, each written down."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import httpx
import pytest

from registry.settings import Settings
from tests.serving.test_ray import served_settings
from tests.serving.test_restart import kept, system

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

NUM_STREAMS = 4


def stream(settings: Settings, text: str, begun: Barrier) -> list[str]:
    """Names of the events of one streamed answer; `begun` is reached after the first."""
    url = f"http://127.0.0.1:{settings.serving.port}/api/generate"
    body = {"text": text, "stream": True}
    names = []
    with httpx.stream("POST", url, json=body, timeout=60) as response:
        assert response.status_code == 200
        for line in response.iter_lines():
            if line.startswith("event: "):
                names.append(line.removeprefix("event: "))
                if len(names) == 1:
                    begun.wait(60)
            elif line.startswith("data: "):
                json.loads(line.removeprefix("data: "))
    return names


def test_answers_under_way_are_finished_and_kept(tmp_path: Path, tiny_base: Path) -> None:
    settings = served_settings(tmp_path, tiny_base)
    (tmp_path / "settings.json").write_text(settings.model_dump_json())
    texts = [f"text {number}" for number in range(NUM_STREAMS)]
    begun = Barrier(NUM_STREAMS + 1)
    with ThreadPoolExecutor(NUM_STREAMS) as pool:
        with system(settings):
            asked = [pool.submit(stream, settings, text, begun) for text in texts]
            begun.wait(60)
        for answer in asked:
            events = answer.result()
            assert set(events[:-1]) == {"delta"}
            assert events[-1] == "answer"
    assert kept(settings) == texts
