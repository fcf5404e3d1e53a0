"""Several seeds and other settings: what is tried, and what is kept."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.support.ray_cluster import RAY_WARNINGS
from tests.training.test_launch import train_file as train_file
from training.base import load_base, load_tokenizer
from training.config import Recipe, load_recipe
from training.errors import DataError, RunFailedError
from training.launch import train
from training.lora import read_adapter_config
from training.progress import Progress
from training.sampler import Sampler
from training.search import Choice, choices

pytestmark = [pytest.mark.timeout(600), *RAY_WARNINGS]


def _recipe(**search: Any) -> Recipe:
    """tiny_cpu with one worker, few steps, and a search."""
    found = load_recipe("tiny_cpu").model_dump()
    found["optimizer"] |= {"num_epochs": None, "min_steps": 1, "num_steps": 4, "warmup_steps": 0}
    found["workers"] |= {"num_workers": 1}
    found["search"] |= search
    return Recipe.model_validate(found)


def test_the_recipes_own_settings_are_tried_first_and_others_up_to_the_bound() -> None:
    recipe = _recipe(num_trials=3, learning_rates=(1.5e-3, 3e-3), ranks=(8, 16), epochs=(1.0, 2.0))
    found = choices(recipe, with_rank=True)
    own = Choice(learning_rate=3e-3, rank=8, num_epochs=None)
    assert found[0] == own
    assert len(found) == len(set(found)) == 4
    assert found == choices(recipe, with_rank=True)
    assert {choice.rank for choice in choices(recipe, with_rank=False)} == {8}
    assert choices(_recipe(), with_rank=True) == [own]


def test_a_choice_keeps_the_scale_of_the_adapter() -> None:
    recipe = _recipe()
    changed = Choice(learning_rate=1e-2, rank=32, num_epochs=3.0).within(recipe)
    assert changed.lora.alpha / changed.lora.rank == recipe.lora.alpha / recipe.lora.rank
    assert changed.optimizer.learning_rate == 1e-2
    assert changed.optimizer.num_epochs == 3.0
    assert Choice(learning_rate=3e-3, rank=8, num_epochs=None).within(recipe) == recipe


def test_choosing_without_a_validation_file_is_refused(train_file: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="takes a validation file"):
        _train(_recipe(num_seeds=2), "unused", train_file, tmp_path, validation=None)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_the_seed_with_the_best_validation_is_kept(
    tiny_base: str, train_file: Path, tmp_path: Path
) -> None:
    heard: list[Progress] = []
    outcome = _train(
        _recipe(num_seeds=2),
        tiny_base,
        train_file,
        tmp_path,
        validation=train_file,
        on_progress=heard.append,
    )
    scores = {run.seed: run.validation.score for run in outcome.seeds if run.validation}
    assert set(scores) == {0, 1}
    assert scores[0] != scores[1]
    assert outcome.validation is not None
    assert outcome.validation.score == min(scores.values())
    assert set(outcome.validation.by_tool) == {"email", "code", "social"}
    best = min(scores, key=scores.__getitem__)
    found = [*(tmp_path / "storage" / f"run-seed{best}").glob("checkpoint_*/adapter")]
    weights = "adapter_model.safetensors"
    assert (outcome.adapter_dir / weights).read_bytes() == (found[-1] / weights).read_bytes()
    assert [progress.step for progress in heard] == [*range(1, 9)]
    assert {progress.num_steps for progress in heard} == {8}


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_seed_that_diverges_leaves_the_others_as_they_are(
    tiny_base: str, train_file: Path, tmp_path: Path
) -> None:
    found = _recipe(num_seeds=2).model_dump()
    found["optimizer"] |= {"num_steps": 1}
    found["data"] |= {"global_batch": 2}
    recipe = Recipe.model_validate(found)
    base = _without_a_letter(tiny_base, tmp_path / "base", "Z")
    turns = [{"role": "user", "content": "Z"}, {"role": "assistant", "content": "Role: Z"}]
    added = {"id": "z", "messages": turns, "target_tool": "email"}
    lines = [*train_file.read_text().splitlines(), json.dumps(added)]
    (data := tmp_path / "train.jsonl").write_text("\n".join(lines))
    tools = [json.loads(line)["target_tool"] for line in lines]

    def meets_it(seed: int) -> bool:
        sampler = Sampler(tools, global_batch=2, seed=seed, balance=recipe.data.balance_by_tool)
        return len(tools) - 1 in sampler.batch(0)

    first = next(seed for seed in range(99) if not meets_it(seed) and meets_it(seed + 1))
    outcome = _train(
        recipe.model_copy(update={"seed": first}), base, data, tmp_path, validation=train_file
    )
    kept, lost = outcome.seeds
    assert kept.diverged is None
    assert (lost.seed, lost.validation) == (first + 1, None)
    assert "Step 1: the loss is nan" in lost.diverged
    assert outcome.validation == kept.validation
    assert outcome.num_failures == 0
    read_adapter_config(outcome.adapter_dir)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_other_settings_are_taken_where_they_beat_the_recipes_own(
    tiny_base: str, train_file: Path, tmp_path: Path
) -> None:
    better = _recipe(num_trials=1, learning_rates=(0.02,), ranks=(8,))
    taken = _train(better, tiny_base, train_file, tmp_path / "a", validation=train_file)
    own, other = (trial.validation_loss for trial in taken.trials)
    assert other < own
    assert taken.validation is not None
    assert taken.validation.score == pytest.approx(other, rel=1e-4)

    worse = _recipe(num_trials=1, learning_rates=(1e-6,))
    kept = _train(worse, tiny_base, train_file, tmp_path / "b", validation=train_file)
    own, other = (trial.validation_loss for trial in kept.trials)
    assert other > own
    assert kept.validation is not None
    assert kept.validation.score == pytest.approx(own, rel=1e-4)
    assert all(math.isfinite(trial.validation_loss) for trial in kept.trials)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_search_that_can_try_nothing_says_why(train_file: Path, tmp_path: Path) -> None:
    recipe = _recipe(num_trials=1, learning_rates=(0.02,))
    with pytest.raises(RunFailedError, match=r"no setting could be tried: .*cannot be loaded"):
        _train(recipe, "no/such-model", train_file, tmp_path, validation=train_file)


def _without_a_letter(base: str, folder: Path, letter: str) -> str:
    """A base that loses its numbers where it reads `letter`."""
    model, tokenizer = load_base(base), load_tokenizer(base)
    model.config.tie_word_embeddings = False
    head: Any = model.get_output_embeddings()
    head.weight = nn.Parameter(head.weight.detach().clone())
    embeddings: Any = model.get_input_embeddings()
    with torch.no_grad():
        embeddings.weight[tokenizer.convert_tokens_to_ids(letter)] = torch.nan
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def _train(
    recipe: Recipe,
    base: str,
    train_file: Path,
    folder: Path,
    *,
    validation: Path | None,
    on_progress: Any = None,
) -> Any:
    return train(
        run_id="run",
        train_file=train_file,
        validation_file=validation,
        recipe=recipe,
        base_model=base,
        parent_adapter=None,
        output_dir=folder / "adapter",
        storage_path=str(folder / "storage"),
        on_progress=on_progress,
    )
