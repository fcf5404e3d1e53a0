"""A whole run in one process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from training.alone import judge, judge_adapter, learn
from training.config import Recipe, load_recipe
from training.encoding import Example
from training.errors import DataError
from training.lora import write_adapter


@pytest.fixture
def recipe() -> Recipe:
    """tiny_cpu for one pass over the examples, two at a time."""
    found = load_recipe("tiny_cpu").model_dump()
    found["optimizer"] |= {"num_epochs": 1.0, "min_steps": 1, "warmup_steps": 0}
    found["data"] |= {"global_batch": 2}
    return Recipe.model_validate(found)


def test_what_is_learned_and_stored_is_judged_alike(
    recipe: Recipe, tiny_base: str, examples: list[Example], tmp_path: Path
) -> None:
    learned = learn(recipe, tiny_base, examples, parent=None)
    assert learned.num_examples == len(examples)
    write_adapter(learned.model, tmp_path / "adapter", base_id=tiny_base)
    found = judge(learned.model, recipe, tiny_base, examples)
    stored = judge_adapter(recipe, tiny_base, examples, adapter=tmp_path / "adapter")
    assert stored.loss == pytest.approx(found.loss, rel=1e-5)
    assert set(found.by_tool) == {"email", "code", "social"}
    assert found.score == pytest.approx(sum(found.by_tool.values()) / 3)


def test_steps_and_counts_leave_out_what_the_objective_has_no_use_for(
    recipe: Recipe, tiny_base: str, examples: list[Example]
) -> None:
    disliked = [replace(example, id=f"no-{example.id}", label=False) for example in examples]
    alone = learn(recipe, tiny_base, examples, parent=None)
    among = learn(recipe, tiny_base, [*examples, *disliked], parent=None)
    assert among.num_examples == len(examples)
    score = judge(alone.model, recipe, tiny_base, examples).loss
    assert judge(among.model, recipe, tiny_base, examples).loss == pytest.approx(score, rel=1e-6)
    with pytest.raises(DataError, match="none of the 12 examples"):
        learn(recipe, tiny_base, disliked, parent=None)


def test_sft_learns_and_judges_as_if_no_answer_had_been_rejected(
    recipe: Recipe, tiny_base: str, examples: list[Example]
) -> None:
    endless = "no " * recipe.data.max_tokens
    pairs = [replace(example, rejected=endless) for example in examples]
    learned = learn(recipe, tiny_base, pairs, parent=None)
    assert learned.num_examples == len(examples)
    judged = judge(learned.model, recipe, tiny_base, pairs)
    assert judged == judge(learned.model, recipe, tiny_base, examples)
