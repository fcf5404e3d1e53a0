"""Writes and reads checkpoints: a PEFT adapter, and what the loop needs to go on."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.utils import set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file

from training.errors import CheckpointError
from training.lora import WEIGHTS_NAME, write_adapter
from training.transport import ADAPTER_NAME

_STATE_NAME = "loop.pt"


def save_checkpoint(
    directory: Path, *, model: PeftModel, state: dict[str, Any], base_id: str, run_digest: str
) -> None:
    """Writes a checkpoint to `directory`, which appears complete or not at all.

    `run_digest` names what must be the same for the run to go on from here. CheckpointError
    where the disk does not take it; nothing is left of it then.
    """
    partial = directory.with_name(f"{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        write_adapter(model, partial / ADAPTER_NAME, base_id=base_id)
        torch.save({"run_digest": run_digest, "loop": state}, partial / _STATE_NAME)
        if directory.exists():
            shutil.rmtree(directory)
        partial.rename(directory)
    except (OSError, RuntimeError, SafetensorError) as error:
        # torch and safetensors tell of a full disk by errors of their own.
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(
            f"The checkpoint {directory} cannot be written: {error}. Is the disk full?"
        ) from error


def load_checkpoint(directory: Path, *, model: PeftModel, run_digest: str) -> dict[str, Any]:
    """Puts the checkpoint's adapter on `model` and returns the loop's state."""
    try:
        stored = torch.load(directory / _STATE_NAME, map_location="cpu", weights_only=True)
        weights = load_file(directory / ADAPTER_NAME / WEIGHTS_NAME)
        found, state = stored["run_digest"], stored["loop"]
    except (
        OSError,
        RuntimeError,
        KeyError,
        EOFError,
        pickle.UnpicklingError,
        SafetensorError,
    ) as error:
        raise CheckpointError(f"The checkpoint {directory} is damaged: {error}") from error
    if found != run_digest:
        raise CheckpointError(
            f"The checkpoint {directory} belongs to another run: its recipe, data or base "
            "differ. Choose another run id."
        )
    outcome: Any = set_peft_model_state_dict(model, weights)
    if outcome.unexpected_keys:
        raise CheckpointError(f"The checkpoint {directory} does not fit the adapter.")
    assert isinstance(state, dict)
    return state
