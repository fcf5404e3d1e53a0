"""Carries small folders, such as adapters, between machines that share no disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from training.errors import AdapterError

ADAPTER_NAME = "adapter"
"""The folder of a checkpoint that is a complete PEFT adapter."""
CONFIG_NAME = "adapter_config.json"
"""The file by which a folder is known to be one."""

Packed = Mapping[str, bytes]
"""The files of a flat folder by name."""


def pack(folder: Path) -> Packed:
    """The folder's files; AdapterError when it cannot be read."""
    try:
        return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.is_file()}
    except OSError as error:
        raise AdapterError(f"{folder} cannot be read: {error}") from error


def unpack(files: Packed, folder: Path) -> Path:
    """Writes `files` into `folder` and returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def refuse_other_content(folder: Path) -> None:
    """AdapterError where something stands at `folder` that an adapter must not replace."""
    is_free = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not is_free and not (folder / CONFIG_NAME).is_file():
        raise AdapterError(
            f"{folder} is there already and is no adapter (no {CONFIG_NAME}): name a folder that "
            "is new or empty, or an adapter to be replaced."
        )


def place(source: Path, target: Path) -> None:
    """Copies `source` to `target`, which appears complete and replaces what was there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial)
    if target.exists():
        shutil.rmtree(target)
    partial.rename(target)
