"""The manifest that an adapter carries: what it was made from, with what, and how well it does."""

from __future__ import annotations

import json
import os
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from serving.adapters import MANIFEST, OwnBase
from serving.errors import AdapterError

LIBRARIES = ("torch", "transformers", "peft", "safetensors", "ray", "kalimtak")


def write_manifest(
    adapter: Path,
    *,
    base_model: str,
    base_digest: str,
    recipe: str,
    dataset_digest: str,
    metrics: dict[str, float],
    created_at: datetime,
) -> Path:
    """Write `manifest.json` into the adapter folder, and return its path."""
    content: dict[str, Any] = {
        "base_model": {"id": base_model, "digest": base_digest},
        "recipe": recipe,
        "dataset_digest": dataset_digest,
        "metrics": metrics,
        "libraries": {name: version(name) for name in LIBRARIES},
        "created_at": created_at.isoformat(),
    }
    path = adapter / MANIFEST
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(temporary, path)
    return path


def is_of_base(adapter: Path, told: str, base_model: str) -> bool:
    """Whether an adapter was trained on `base_model`; `told`: the name that it had then.

    A base model that was moved is the same.
    """
    if told == base_model:
        return True
    try:
        OwnBase(base_model).refuse_others(adapter)
    except AdapterError:
        return False
    return (adapter / MANIFEST).is_file()
