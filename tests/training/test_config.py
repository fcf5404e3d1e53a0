from __future__ import annotations

from pathlib import Path

import pytest

from training.config import RECIPES, Recipe, load_recipe, recipe_names
from training.errors import RecipeError


def _written(tmp_path: Path, old: str, new: str) -> Path:
    text = (RECIPES / "tiny_cpu.toml").read_text()
    assert old in text
    path = tmp_path / "changed.toml"
    path.write_text(text.replace(old, new))
    return path


def test_every_shipped_recipe_loads_and_starts_with_its_command() -> None:
    assert recipe_names() == ["lora_1gpu", "lora_ddp", "lora_fsdp2", "qlora_1gpu", "tiny_cpu"]
    for name in recipe_names():
        first_line = (RECIPES / f"{name}.toml").read_text().splitlines()[0]
        assert load_recipe(name).name == name
        assert first_line.startswith(f"# python -m training.launch --recipe {name} ")


def test_unknown_recipe_is_answered_with_the_known_ones() -> None:
    with pytest.raises(RecipeError, match="no recipe 'big'; there are lora_1gpu, lora_ddp"):
        load_recipe("big")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rank = 8", "rank = 8\nrankk = 9", r"unknown key lora\.rankk\."),
        ("rank = 8", "rank = 0", r"lora\.rank: .*greater than or equal to 1 \(got 0\)\."),
        ('schedule = "linear"', 'schedule = "magic"', r"optimizer\.schedule: .*'magic'"),
        ("warmup_steps = 4", "warmup_steps = 101", r"warmup_steps \(101\) exceeds .*\(100\)"),
        ("min_steps = 20", "min_steps = 101", r"min_steps \(101\) exceeds .*\(100\)"),
        ("num_workers = 2", "num_workers = 17", r"num_workers \(17\) exceeds .*\(16\)"),
        ("max_tokens = 512", "max_tokens = 4096", r"max_tokens \(4096\) exceeds .*\(2048\)"),
        ("[data]", '[objective]\nname = "ppo"\n[data]', r"objective\.name: .*'ppo'"),
        ("[data]", "[search]\nnum_trials = 2\n[data]", r"num_trials \(2\) needs learning_rates"),
        ("[data]", "[search]\nranks = [4]\n[data]", r"num_trials \(0\) needs learning_rates"),
        (
            "[data]",
            "[search]\nnum_trials = 1\nepochs = [-1.0]\n[data]",
            r"search: -1\.0 cannot be tried",
        ),
        ("[data]", "[search]\nnum_seeds = 0\n[data]", r"search\.num_seeds: .*\(got 0\)"),
        ("rank = 8", "rank = ", "is not TOML"),
    ],
)
def test_a_wrong_recipe_is_refused_in_one_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(_written(tmp_path, old, new))
    assert "\n" not in str(caught.value)


def test_missing_file_is_a_recipe_error(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(tmp_path / "none.toml")


def test_digest_follows_values_not_layout(tmp_path: Path) -> None:
    same = load_recipe(_written(tmp_path, "# The embedded", "# An embedded"))
    assert same.digest() == load_recipe("tiny_cpu").digest()
    other = load_recipe(_written(tmp_path, "seed = 0", "seed = 1"))
    assert other.digest() != same.digest()


def test_a_recipe_cannot_be_changed() -> None:
    recipe: Recipe = load_recipe("tiny_cpu")
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("num_examples", "num_steps"), [(1, 20), (400, 20), (401, 21), (800, 40), (5000, 100)]
)
def test_a_run_takes_its_epochs_within_its_bounds(num_examples: int, num_steps: int) -> None:
    assert load_recipe("tiny_cpu").num_steps(num_examples) == num_steps


def test_without_epochs_a_run_always_takes_its_steps() -> None:
    recipe = load_recipe("tiny_cpu")
    optimizer = recipe.optimizer.model_copy(update={"num_epochs": None})
    assert recipe.model_copy(update={"optimizer": optimizer}).num_steps(1) == optimizer.num_steps


@pytest.mark.parametrize("name", ["lora_1gpu", "qlora_1gpu", "lora_ddp", "lora_fsdp2"])
def test_a_run_on_gpus_neither_stops_short_of_many_samples_nor_repeats_few(name: str) -> None:
    recipe = load_recipe(name)
    batch = recipe.data.global_batch
    assert [recipe.num_steps(batch * number) for number in (1, 100)] == [20, 300]
