"""The whole of a retraining with real training, on a tiny model and a Ray of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flows.context import Context
from flows.evaluate import run_evaluate
from flows.ray_learner import RayLearner
from flows.retrain import run_retrain
from flows.steps import PlainSteps
from registry import versions
from tests.support.tiny_model import make_tiny_model
from tests.support.usage import log_liked

RECIPE = """
name = "test"
[lora]
rank = 2
alpha = 4
[optimizer]
num_steps = 4
learning_rate = 1e-3
[data]
global_batch = 4
tokens_per_pass = 512
max_tokens = 256
[workers]
num_workers = 1
cpus_per_worker = 0.25
threads = 1
checkpoint_every = 4
[evaluation]
batch_size = 32
max_new_tokens = 4
"""


class Recorder(PlainSteps):
    """Remembers how far the training said it was."""

    def __init__(self) -> None:
        self.percents: list[float] = []

    def progress(self, percent: float, note: str) -> None:
        assert "loss" in note
        self.percents.append(percent)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_usage_becomes_a_version_that_can_be_evaluated(context: Context, tmp_path: Path) -> None:
    base = make_tiny_model(tmp_path / "base")
    recipe = tmp_path / "test.toml"
    recipe.write_text(RECIPE)
    training = context.settings.training.model_copy(
        update={"base_model": str(base), "recipe": str(recipe)}
    )
    context = replace(context, settings=context.settings.model_copy(update={"training": training}))
    log_liked(context, 60, at=context.clock())
    learner, steps = RayLearner(context.settings), Recorder()

    result = run_retrain(context, learner, workload="default", steps=steps)

    assert (result.status, result.standing) == ("succeeded", "challenger"), result.reason
    assert steps.percents[-1] == 100.0
    with context.database.read() as session:
        row = versions.get(session, result.version or "")
    assert row.evaluation["training"]["steps"] == 4
    folder = context.store.fetch(row.adapter_digest)
    assert {path.name for path in folder.iterdir()} >= {
        "adapter_model.safetensors",
        "adapter_config.json",
        "manifest.json",
    }

    report = run_evaluate(context, learner, workload="default", steps=PlainSteps())

    assert [item.standing for item in report.rows] == ["base", "base", "challenger"]
    page = report.page.read_text()
    assert result.version in page
    assert page.count("data:image/png;base64,") == 4
