"""A whole run in one process: for trials of settings, and for sites that learn by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel

from training.base import load_tokenizer
from training.config import Recipe
from training.encoding import Encoded, Example, encode_all
from training.loop import TrainingLoop, validate
from training.objectives import Objective, learnable
from training.parallel import Alone
from training.setup import adapted_base, objective_of
from training.validation import Validation


@dataclass(frozen=True, kw_only=True)
class Learned:
    """A base with what it has learned."""

    model: PeftModel
    num_examples: int
    """Those that were learned from."""


def learn(
    recipe: Recipe, base_model: str, examples: Sequence[Example], *, parent: Path | None
) -> Learned:
    """Carries out `recipe` on one worker's resources. Raises a TrainingError."""
    model, objective = _prepared(recipe, base_model, parent)
    data = _encoded(recipe, base_model, examples, with_rejected=recipe.objective.reads_rejected)
    loop = TrainingLoop(
        model=model,
        dataset=data,
        settings=recipe.loop_settings(len(learnable(data, recipe.objective.name))),
        collective=Alone(),
        objective=objective,
    )
    loop.run(lambda _: None)
    return Learned(model=model, num_examples=len(learnable(data, recipe.objective.name)))


def judge(
    model: PeftModel, recipe: Recipe, base_model: str, held_out: Sequence[Example]
) -> Validation:
    """How well `model` does on `held_out`. Raises a TrainingError."""
    objective = objective_of(recipe, device=torch.device(recipe.device))
    data = _encoded(recipe, base_model, held_out, with_rejected=False)
    return validate(model, data, collective=Alone(), objective=objective)


def judge_adapter(
    recipe: Recipe, base_model: str, held_out: Sequence[Example], *, adapter: Path
) -> Validation:
    """The same for what is stored in `adapter`."""
    model, _ = _prepared(recipe, base_model, adapter)
    return judge(model, recipe, base_model, held_out)


def _prepared(recipe: Recipe, base_model: str, adapter: Path | None) -> tuple[PeftModel, Objective]:
    device = torch.device(recipe.device)
    torch.set_num_threads(recipe.workers.threads)
    model = adapted_base(recipe, base_model, parent=adapter, device=device)
    return model, objective_of(recipe, device=device)


def _encoded(
    recipe: Recipe, base_model: str, examples: Sequence[Example], *, with_rejected: bool
) -> tuple[Encoded, ...]:
    return encode_all(
        examples,
        load_tokenizer(base_model),
        max_tokens=recipe.data.max_tokens,
        with_rejected=with_rejected,
    ).examples
