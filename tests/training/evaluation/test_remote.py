from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.ray_cluster import RAY_WARNINGS
from training.config import load_recipe
from training.encoding import Example
from training.errors import AdapterError, BaseModelError
from training.evaluation.remote import evaluate_on_ray
from training.evaluation.runner import evaluate
from training.evaluation.suite import from_training

pytestmark = [*RAY_WARNINGS, pytest.mark.usefixtures("ray_cluster")]


def test_a_task_answers_as_this_process_does(tiny_base: str, examples: list[Example]) -> None:
    recipe = load_recipe("tiny_cpu")
    short = recipe.evaluation.model_copy(update={"max_new_tokens": 8})
    questions = from_training(examples[:4])
    done = evaluate_on_ray(
        recipe=recipe.model_copy(update={"evaluation": short}),
        base_model=tiny_base,
        arms={"base": None},
        examples=questions,
    )
    here = evaluate(base_model=tiny_base, adapter=None, examples=questions, max_new_tokens=8)
    there = [replace(answer, seconds=0.0) for answer in done["base"].answers]
    assert there == [replace(answer, seconds=0.0) for answer in here.answers]


def test_errors_arrive_as_they_were_raised(
    tiny_base: str, examples: list[Example], tmp_path: Path
) -> None:
    questions = from_training(examples[:1])
    recipe = load_recipe("tiny_cpu")
    with pytest.raises(BaseModelError, match="cannot be loaded"):
        evaluate_on_ray(
            recipe=recipe, base_model=str(tmp_path), arms={"a": None}, examples=questions
        )
    with pytest.raises(AdapterError, match="holds no adapter_model"):
        evaluate_on_ray(
            recipe=recipe, base_model=tiny_base, arms={"a": tmp_path}, examples=questions
        )
