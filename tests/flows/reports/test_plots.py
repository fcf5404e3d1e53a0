"""Plots: PNG of a sensible size, from any number of versions and tools."""

from __future__ import annotations

import base64
import struct
from datetime import UTC, datetime

import pytest

from flows.decisions.gate import Scores, ToolScore
from flows.learner import Evaluated
from flows.reports import plots
from flows.reports.curation import shares_plot
from flows.reports.over_time import over_time_plot

PNG = b"\x89PNG\r\n\x1a\n"


def size_of(png: bytes) -> tuple[int, int]:
    assert png.startswith(PNG)
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def evaluated(*tools: str) -> Evaluated:
    return Evaluated(scores=Scores(0.5, 10, {tool: ToolScore(10, 0.5) for tool in tools}))


@pytest.mark.parametrize("number", [1, 5])
def test_versions_and_tools_are_drawn(number: int) -> None:
    results = {
        f"Qwen/Qwen2-7B-ft-17000000{index:02}": evaluated("email", "code")
        for index in range(number)
    }
    for png in (plots.versions_plot(results), plots.tools_plot(results)):
        width, height = size_of(png)
        assert width >= 800
        assert height >= 150


def test_a_version_without_any_tool_is_drawn_too() -> None:
    assert size_of(plots.tools_plot({"base": evaluated()}))


def test_losses_are_drawn() -> None:
    assert size_of(plots.loss_plot([(1, 2.0), (2, 1.0)]))


def test_a_data_uri_holds_the_image_itself() -> None:
    uri = plots.data_uri(PNG)
    assert base64.b64decode(uri.removeprefix("data:image/png;base64,")) == PNG


@pytest.mark.parametrize("number", [0, 1, 4])
def test_versions_are_drawn_over_time(number: int) -> None:
    made = {
        f"Qwen/Qwen2-7B-ft-17000000{index:02}": datetime(2026, 1, 1 + 9 * index, tzinfo=UTC)
        for index in range(number)
    }
    results = {name: evaluated("email") for name in ("base", "few-shot", *made)}
    assert size_of(over_time_plot(results, made))


def test_a_name_with_a_dollar_sign_is_no_formula() -> None:
    assert size_of(shares_plot("Languages", {"$\\x{$": 2}, {"en": 1}))[0] > 100
