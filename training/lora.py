"""Puts a LoRA adapter on a base model, continues one, and writes it in PEFT's format."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, TaskType, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import PreTrainedModel

from training.errors import AdapterError
from training.transport import CONFIG_NAME

WEIGHTS_NAME = "adapter_model.safetensors"


def new_adapter(
    base: PreTrainedModel,
    *,
    rank: int,
    alpha: float,
    dropout: float,
    target_modules: str | Sequence[str],
    seed: int,
) -> PeftModel:
    """`base` with fresh LoRA weights, the same ones for the same seed; only they train."""
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # PEFT declares int and scales by a float
        lora_dropout=dropout,
        target_modules=target_modules if isinstance(target_modules, str) else [*target_modules],
    )
    torch.manual_seed(seed)
    try:
        with _without_deprecations():
            model = get_peft_model(base, config)
    except ValueError as error:
        raise AdapterError(f"LoRA does not fit the base: {error}") from error
    assert isinstance(model, PeftModel)
    return model


def continue_adapter(base: PreTrainedModel, adapter: Path, *, base_id: str) -> PeftModel:
    """`base` with the weights of `adapter`, which keep their own rank; only they train."""
    config = read_adapter_config(adapter)
    trained_on = config.get("base_model_name_or_path")
    if trained_on != base_id:
        raise AdapterError(
            f"The adapter in {adapter} was trained on {trained_on!r}, not on {base_id!r}."
        )
    return attach_adapter(base, adapter, trainable=True)


def attach_adapter(base: PreTrainedModel, adapter: Path, *, trainable: bool) -> PeftModel:
    """`base` with the adapter stored in `adapter`; AdapterError when it does not fit."""
    read_adapter_config(adapter)
    try:
        with _without_deprecations():
            return PeftModel.from_pretrained(base, str(adapter), is_trainable=trainable)
    except (ValueError, RuntimeError, OSError) as error:
        raise AdapterError(f"The adapter in {adapter} does not fit the base: {error}") from error


def read_adapter_config(adapter: Path) -> dict[str, Any]:
    """The adapter's configuration as written; AdapterError when it is not an adapter."""
    if not (adapter / WEIGHTS_NAME).is_file():
        raise AdapterError(f"{adapter} holds no {WEIGHTS_NAME}.")
    try:
        config = json.loads((adapter / CONFIG_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AdapterError(f"{adapter / CONFIG_NAME} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise AdapterError(f"{adapter / CONFIG_NAME} is not an adapter's configuration.")
    return config


def write_adapter(model: PeftModel, directory: Path, *, base_id: str) -> None:
    """Writes a PEFT adapter that names `base_id` as its base.

    The same weights give the same bytes, so that adapters can be named by their digest;
    PEFT's own writer orders the target modules by hash and looks the base up on the hub.
    """
    directory.mkdir(parents=True, exist_ok=True)
    weights = get_peft_model_state_dict(model, save_embedding_layers=False)
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()},
        directory / WEIGHTS_NAME,
        metadata={"format": "pt"},
    )
    config = _plain(model.peft_config["default"])
    config |= {"base_model_name_or_path": base_id, "inference_mode": True}
    text = json.dumps(config, indent=2, sort_keys=True)
    (directory / CONFIG_NAME).write_text(text + "\n", encoding="utf-8")


def _plain(config: PeftConfig) -> dict[str, Any]:
    return {
        key: sorted(value) if isinstance(value, set | frozenset) else value
        for key, value in config.to_dict().items()
    }


@contextmanager
def _without_deprecations() -> Iterator[None]:
    """PEFT 0.21 asks transformers 5 for an attribute by its old name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`")
        yield
