"""A base model is the same wherever it lies."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

from flows.manifest import is_of_base, write_manifest
from registry.base_model import folder_digest
from tests.support.tiny_model import make_tiny_model


def test_a_base_model_that_was_moved_is_the_same_and_another_is_not(tmp_path: Path) -> None:
    base, adapter = make_tiny_model(tmp_path / "base"), tmp_path / "adapter"
    adapter.mkdir()
    assert not is_of_base(adapter, str(base), "elsewhere")
    write_manifest(
        adapter,
        base_model=str(base),
        base_digest=folder_digest(base),
        recipe="r",
        dataset_digest="d",
        metrics={},
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    moved = shutil.copytree(base, tmp_path / "moved")
    other = make_tiny_model(tmp_path / "other", seed=1)
    assert is_of_base(adapter, str(base), str(base))
    assert is_of_base(adapter, str(base), str(moved))
    assert not is_of_base(adapter, str(base), str(other))
    assert not is_of_base(adapter, str(base), "Qwen/Qwen3-0.6B")
