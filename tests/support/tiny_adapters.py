"""Small LoRA adapters on a tiny model: random, and one whose answers overflow."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

WEIGHTS = "adapter_model.safetensors"


def make_adapter(base: Path, folder: Path, *, seed: int = 1, scale: float = 0.5) -> Path:
    """Writes a PEFT LoRA with random matrices, strong enough to change the answers."""
    model = AutoModelForCausalLM.from_pretrained(base)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        with warnings.catch_warnings():
            # PEFT asks transformers for a property that the latter has deprecated.
            warnings.simplefilter("ignore", FutureWarning)
            peft_model = get_peft_model(model, config)
        for name, parameter in peft_model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=scale)
    peft_model.save_pretrained(folder)
    return folder


def make_broken_adapter(base: Path, folder: Path, *, seed: int = 1) -> Path:
    """Writes an adapter that loads, and whose every answer is not a number."""
    make_adapter(base, folder, seed=seed)
    weights = load_file(folder / WEIGHTS)
    huge = {
        name: torch.full_like(tensor, 1e38) if "lora_B" in name else tensor
        for name, tensor in weights.items()
    }
    save_file(huge, folder / WEIGHTS)
    return folder
