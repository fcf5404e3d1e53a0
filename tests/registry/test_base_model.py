"""Base models are found by name."""

import pytest

from registry import base_model
from registry.base_model import EMBEDDED, resolve
from registry.errors import SettingsError


def test_other_names_are_what_from_pretrained_takes() -> None:
    assert resolve("Qwen/Qwen3-0.6B") == "Qwen/Qwen3-0.6B"
    assert resolve("/models/mine") == "/models/mine"


def test_a_missing_embedded_model_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_model, "_EMBEDDED_FOLDER", ("no", "such"))
    with pytest.raises(SettingsError, match="build it"):
        resolve(EMBEDDED)
