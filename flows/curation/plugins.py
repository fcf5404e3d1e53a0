"""Functions that an installation brings along, named in its settings."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from registry.errors import SettingsError


@cache
def load_function(name: str | None, setting: str) -> Any:
    """The function `package.module:function`, None without a name. Raises `SettingsError`."""
    if name is None:
        return None
    module, _, function = name.partition(":")
    try:
        found = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingsError(
            f"{setting} = '{name}' cannot be loaded: {error}; write package.module:function"
        ) from error
    return found
