"""Evaluation of the champion, the versions before it and the base."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flows.context import Context
from flows.errors import RefusedError
from flows.evaluate import EvaluationReport, evaluate_each, run_evaluate
from flows.retrain import run_retrain
from flows.steps import PlainSteps
from registry import deployment
from tests.flows.conftest import FakeClock
from tests.support.fake_learner import FakeLearner
from tests.support.usage import log_liked
from training.encoding import Example
from training.errors import DataError
from training.evaluation.frozen import freeze

pytestmark = pytest.mark.both_databases


@pytest.fixture
def without_trials(context: Context) -> Context:
    """Every version that passes becomes champion at once."""
    off = context.settings.experiment.model_copy(update={"enabled": False})
    return replace(context, settings=context.settings.model_copy(update={"experiment": off}))


def evaluate(context: Context, learner: FakeLearner) -> EvaluationReport:
    return run_evaluate(context, learner, workload="default", steps=PlainSteps())


def test_without_held_out_samples_it_refuses(context: Context) -> None:
    with pytest.raises(RefusedError, match="no held-out sample"):
        evaluate(context, FakeLearner([]))
    assert list(context.folder("runs").iterdir()) == []


def test_the_report_shows_base_previous_versions_and_champion_in_their_order(
    without_trials: Context, clock: FakeClock
) -> None:
    learner = FakeLearner([0.6, 0.65, 0.7, 0.75, 0.8])
    names = []
    for generation in range(5):
        log_liked(without_trials, 60, at=clock.move(hours=1), start=60 * generation)
        names.append(run_retrain(without_trials, learner, workload="default").version)
        clock.move(hours=30)
    report = evaluate(without_trials, learner)
    assert [row.version for row in report.rows] == ["base", *names[1:]]
    assert [row.standing for row in report.rows] == ["base", *["retired"] * 3, "champion"]
    assert [row.parent for row in report.rows[1:]] == names[:4]
    assert [row.evaluated.scores.accuracy for row in report.rows] == [0.5, 0.65, 0.7, 0.75, 0.8]
    page = report.page.read_text(encoding="utf-8")
    assert all(name in page for name in names[1:] if name)
    assert page.count("data:image/png;base64,") == 4
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_frozen_suites_are_asked_where_there_are_some(
    without_trials: Context, clock: FakeClock, tmp_path: Path
) -> None:
    suites = tuple(
        freeze([_question(f"{name}-{number}") for number in range(7)], name=name, folder=tmp_path)
        for name in ("support", "sales")
    )
    training = without_trials.settings.training.model_copy(update={"suites": suites})
    settings = without_trials.settings.model_copy(update={"training": training})
    context = replace(without_trials, settings=settings)
    # A suite needs no held-out sample.
    report = evaluate(context, FakeLearner([]))
    assert [row.evaluated.scores.num_samples for row in report.rows] == [14]
    log_liked(context, 60, at=clock())
    version = run_retrain(context, FakeLearner([0.8]), workload="default").version
    report = evaluate(context, FakeLearner([]))
    assert [row.version for row in report.rows] == ["base", version]
    assert {row.evaluated.scores.num_samples for row in report.rows} == {14}
    assert report.asked == f"frozen suites {suites[0].stem}, {suites[1].stem}"
    assert suites[0].stem in report.page.read_text(encoding="utf-8")
    suites[1].write_text(suites[0].read_text())
    with pytest.raises(DataError, match=r"sales\..* was changed"):
        evaluate(context, FakeLearner([]))


def test_each_workload_with_held_out_samples_has_its_page(context: Context) -> None:
    with context.database.write() as session:
        for name in ("mail", "support"):
            deployment.add_workload(session, name, now=context.clock())
    for number, name in enumerate(("default", "support")):
        log_liked(context, 60, at=context.clock(), start=60 * number, workload=name)
        run_retrain(context, FakeLearner([0.8]), workload=name)
    end = evaluate_each(context, FakeLearner([]), None, steps_for=lambda _: PlainSteps())
    assert "mail: workload 'mail' has no held-out sample" in end.message
    pages = sorted(path.name.split("-")[1] for path in context.folder("reports").iterdir())
    assert pages == ["default", "support"]


def _question(name: str) -> Example:
    return Example(
        id=name,
        messages=(
            {"role": "user", "content": f"What is {name}?"},
            {"role": "assistant", "content": "A name."},
        ),
    )
