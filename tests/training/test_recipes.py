"""Every shipped recipe, carried out for two steps on what this machine has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from training.base import load_base
from training.config import Recipe, load_recipe, recipe_names
from training.encoding import Example, encode_all
from training.errors import BaseModelError
from training.loop import TrainingLoop
from training.lora import attach_adapter, write_adapter
from training.parallel import Alone
from training.setup import adapted_base, objective_of

CPU = torch.device("cpu")


def _for_one_cpu(recipe: Recipe) -> Recipe:
    """The recipe without its GPUs; four bits, which take one, become sixteen."""
    workers = recipe.workers.model_copy(
        update={
            "num_workers": 1,
            "min_workers": None,
            "gpus_per_worker": 0,
            "precision": "bf16" if recipe.workers.precision == "nf4" else recipe.workers.precision,
        }
    )
    changed = recipe.model_copy(update={"workers": workers})
    return Recipe.model_validate(changed.model_dump())


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's own
@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_trains_an_adapter(
    name: str,
    tiny_base: str,
    examples: list[Example],
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
) -> None:
    recipe = _for_one_cpu(load_recipe(name))
    model = adapted_base(recipe, tiny_base, parent=None, device=CPU)
    data = encode_all(examples, tokenizer, max_tokens=recipe.data.max_tokens).examples
    loop = TrainingLoop(
        model=model,
        dataset=data,
        settings=replace(recipe.loop_settings(len(data)), num_steps=2),
        collective=Alone(),
        objective=objective_of(recipe, device=CPU),
    )
    loop.run(lambda _: None)
    assert len(loop.losses) == 2
    trained = [p for p in model.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {torch.float32}
    write_adapter(model, tmp_path / "adapter", base_id=tiny_base)
    attach_adapter(load_base(tiny_base), tmp_path / "adapter", trainable=False)


def test_four_bits_without_a_gpu_are_refused_before_anything_is_loaded(tiny_base: str) -> None:
    with pytest.raises(BaseModelError, match="in 4 bits needs a GPU, and there is none here"):
        load_base(tiny_base, quantised=True)
