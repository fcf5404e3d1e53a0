"""The whole of a retraining with real training, on a tiny model and a Ray of its own."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from flows.context import Context
from flows.evaluate import run_evaluate
from flows.ray_learner import RayLearner
from flows.retrain import run_retrain
from flows.steps import PlainSteps
from registry import interactions, versions
from registry.interactions import Feedback, Interaction
from registry.models import Dataset
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
        assert re.search(r"step \d+/4, loss \d+\.\d+, \d+ tokens/s", note)
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
    changed = {"training": training, "artifacts_url": f"file://{tmp_path}/shared"}
    context = replace(context, settings=context.settings.model_copy(update=changed))
    log_liked(context, 60, at=context.clock())
    learner, steps = RayLearner(context.settings), Recorder()

    result = run_retrain(context, learner, workload="default", steps=steps)

    assert (result.status, result.standing) == ("succeeded", "challenger"), result.reason
    assert steps.percents[-1] == 100.0
    assert list((tmp_path / "shared/checkpoints").iterdir()) == []
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


def rate(context: Context, number: int) -> None:
    """Every third answer is liked, every third corrected, every third disliked."""
    now = context.clock()
    with context.database.write() as session:
        for place in range(number):
            item = Interaction(
                id=f"i{place:05}",
                created_at=now,
                input_text=f"write a mail about subject {place}",
                structured_prompt=f"Role: writer {place}",
                model_output=f"Role: writer {place}",
                quality_score=0.9,
                target_tool="email",
            )
            interactions.log(session, [item], keyring=context.keyring)
            given = Feedback(
                interaction_id=item.id,
                thumb=1 if place % 3 == 0 else -1,
                corrected_output=f"Role: better writer {place}" if place % 3 == 1 else None,
            )
            interactions.add_feedback(session, given, now=now, new_id=context.new_id)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("objective", ["dpo", "kto", "mixed"])
def test_preferences_are_learned_from_what_people_rejected(
    context: Context, tmp_path: Path, objective: str
) -> None:
    base = make_tiny_model(tmp_path / "base")
    recipe = tmp_path / "test.toml"
    recipe.write_text(f'{RECIPE}\n[objective]\nname = "{objective}"\n')
    settings = context.settings
    training = settings.training.model_copy(
        update={"base_model": str(base), "recipe": str(recipe), "min_samples": 20}
    )
    curation = settings.curation.model_copy(update={"keep_disliked": objective == "kto"})
    settings = settings.model_copy(update={"training": training, "curation": curation})
    context = replace(context, settings=settings)
    rate(context, 150)

    result = run_retrain(context, RayLearner(settings), workload="default", steps=PlainSteps())

    assert result.status in ("succeeded", "rejected"), result.reason
    with context.database.read() as session:
        row = versions.get(session, result.version or "")
        assert row.objective == objective
        assert row.evaluation["training"]["steps"] == 4
        dataset = session.get_one(Dataset, row.training_dataset_id)
    assert dataset.counts["corrected"] > 20
    assert (dataset.counts["disliked"] > 20) == (objective == "kto")
