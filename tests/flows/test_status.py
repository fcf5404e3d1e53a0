"""What `kalimtak status` reads."""

from __future__ import annotations

import pytest

from flows.context import Context
from flows.experiment import look
from flows.retrain import run_retrain
from flows.status import read_status, rows
from tests.flows.conftest import FakeClock
from tests.support.fake_learner import FakeLearner
from tests.support.usage import log_liked

pytestmark = pytest.mark.both_databases


def test_an_empty_installation_is_served_by_the_base_model(context: Context) -> None:
    shown = rows(read_status(context, workload="default"))
    assert shown["total interactions"] == "0"
    assert shown["feedback rate"] == "–"
    assert shown["champion"] == "base model"
    assert shown["challenger"] == "–"


def test_everything_that_was_asked_for_is_shown(context: Context, clock: FakeClock) -> None:
    log_liked(context, 100, at=clock())
    result = run_retrain(context, FakeLearner([0.8]), workload="default")
    clock.move(hours=1)
    look(context, "default")
    status = read_status(context, workload="default")
    shown = rows(status)
    assert shown["total interactions"] == "100"
    assert shown["feedback rate"] == "100.0%"
    assert shown["average quality"] == "1.000"
    assert shown["retrains"] == "1"
    assert shown["challenger"] == f"{result.version} at 10% of the traffic"
    assert [decision.action for decision in status.decisions] == ["wait"]
    assert status.as_dict()["decisions"][0]["decided_at"] == "2026-01-14T13:00:00+00:00"
