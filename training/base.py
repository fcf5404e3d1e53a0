"""Finds and loads base models by name: "embedded", a folder, or a Hugging Face id."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers  # its parts are loaded when first used, so that names and digests are cheap
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import cached_file

from registry.base_model import folder_digest
from registry.errors import SettingsError
from training import base_model
from training.errors import BaseModelError

EMBEDDED = "embedded"
"""The name of the model that ships with the project."""


def resolve_base(name: str) -> str:
    """What `from_pretrained` takes for `name`: a folder for "embedded", else `name` itself."""
    return str(base_model.PATH) if name == EMBEDDED else name


def base_digest(path: str | Path) -> str:
    """`sha256:…` over a model folder's files, or `revision:…` of a model on the Hugging Face hub.

    Notes and manifests beside the model do not count, only what `from_pretrained` reads.
    """
    folder = Path(path)
    if not folder.exists():
        return f"revision:{_hub_revision(str(path))}"
    try:
        return folder_digest(folder)
    except SettingsError as error:
        raise BaseModelError(f"{error}.") from error


def load_base(
    name: str,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    quantised: bool = False,
) -> transformers.PreTrainedModel:
    """The base model, in evaluation mode. Only safetensors are read, never pickles.

    `quantised` keeps its linear layers in 4 bits (nf4), for which `device` must be a GPU and
    bitsandbytes be installed; BaseModelError tells what is missing.
    """
    source = resolve_base(name)
    extra = _quantisation(name, dtype, torch.device(device)) if quantised else {}
    try:
        with _without_progress_bars():
            model = transformers.AutoModelForCausalLM.from_pretrained(
                source, dtype=dtype, use_safetensors=True, **extra
            )
    except (OSError, ValueError) as error:
        raise BaseModelError(_not_loaded(name, source, error)) from error
    assert isinstance(model, transformers.PreTrainedModel)
    if not quantised:
        torch.nn.Module.to(model, device)
    return model


def _quantisation(name: str, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """What `from_pretrained` is told so that the base comes in 4 bits."""
    if device.type != "cuda" or not torch.cuda.is_available():
        raise BaseModelError(f"{name!r} in 4 bits needs a GPU, and there is none here.")
    if find_spec("bitsandbytes") is None:
        raise BaseModelError(
            f"{name!r} in 4 bits needs bitsandbytes on every machine that trains: "
            "pip install bitsandbytes."
        )
    config = transformers.BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": config, "device_map": {"": str(device)}}


def load_tokenizer(name: str) -> transformers.PreTrainedTokenizerBase:
    """The base's tokenizer, with a padding token (the end token where it has none)."""
    source = resolve_base(name)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise BaseModelError(_not_loaded(name, source, error)) from error
    if tokenizer.eos_token_id is None:
        raise BaseModelError(f"The tokenizer of {name!r} has no end token (eos_token).")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _hub_revision(name: str) -> str:
    """The commit that the hub, or this machine's cache of it, holds for `name`."""
    try:
        config = cached_file(name, "config.json")
    except OSError as error:
        raise BaseModelError(_not_loaded(name, name, error)) from error
    assert config is not None
    return Path(config).parent.name


def _not_loaded(name: str, source: str, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    where = "" if source == name else f" ({source})"
    return f"Base model {name!r}{where} cannot be loaded: {reason}"


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if enabled:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
