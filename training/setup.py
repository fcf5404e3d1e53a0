"""Puts together what a recipe asks for: base, adapter and objective. Plain torch, no Ray."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import PeftModel
from torch import distributed, nn
from transformers import PreTrainedConfig, PreTrainedModel

from training.base import load_base
from training.config import Recipe
from training.lora import continue_adapter, new_adapter
from training.objectives import Objective
from training.packable import enable_packing, recompute_activations
from training.sharding import shard_base
from training.thin_lora import make_thin
from training.thin_norm import make_norms_thin


def adapted_base(
    recipe: Recipe, base_model: str, *, parent: Path | None, device: torch.device
) -> PeftModel:
    """The base as `recipe` wants it, with `parent`'s adapter or a fresh one, on `device`.

    Where a process group is initialised, all its workers call this. Raises a TrainingError.
    """
    workers = recipe.workers
    base = load_base(
        base_model,
        dtype=torch.float32 if workers.precision == "fp32" else torch.bfloat16,
        # What is split goes to the device a share at a time.
        device="cpu" if workers.shard_base else device,
        quantised=workers.precision == "nf4",
    )
    _drop_nothing(base)
    enable_packing(base)
    model = _with_adapter(base, recipe, base_model, parent)
    make_thin(model)
    make_norms_thin(model)
    if workers.recompute:
        recompute_activations(model)
    if workers.shard_base and distributed.is_initialized():
        shard_base(model, device=device)
    torch.nn.Module.to(model, device)
    return model


def _drop_nothing(base: PreTrainedModel) -> None:
    """Takes back the dropout that the base was trained with: what a run drops, its recipe says.

    Models keep it in layers of its own, in numbers beside others, or look it up in their
    configuration.
    """
    for module in base.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for holder in (module, getattr(module, "config", None)):
            if isinstance(holder, nn.Module | PreTrainedConfig):
                shares = [name for name, value in vars(holder).items() if _is_share(name, value)]
                for name in shares:
                    setattr(holder, name, 0.0)


def _is_share(name: str, value: object) -> bool:
    return "drop" in name and isinstance(value, float)


def objective_of(recipe: Recipe, *, device: torch.device) -> Objective:
    """The objective that `recipe` names."""
    return Objective(
        recipe.objective_settings(), device=device, tokens_per_pass=recipe.data.tokens_per_pass
    )


def _with_adapter(
    base: PreTrainedModel, recipe: Recipe, base_model: str, parent: Path | None
) -> PeftModel:
    if parent is not None:
        return continue_adapter(base, parent, base_id=base_model)
    return new_adapter(
        base,
        rank=recipe.lora.rank,
        alpha=recipe.lora.alpha,
        dropout=recipe.lora.dropout,
        target_modules=recipe.lora.target_modules,
        seed=recipe.seed,
    )
