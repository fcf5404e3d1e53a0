from __future__ import annotations

from pathlib import Path

import pytest

from training.errors import AdapterError
from training.transport import CONFIG_NAME, pack, place, refuse_other_content, unpack


def test_a_folder_arrives_as_it_was(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.json").write_text("{}")
    (source / "b.bin").write_bytes(b"\0\1")
    arrived = unpack(pack(source), tmp_path / "there" / "target")
    assert pack(arrived) == pack(source) == {"a.json": b"{}", "b.bin": b"\0\1"}


def test_a_missing_folder_is_an_adapter_error(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="cannot be read"):
        pack(tmp_path / "none")


def test_placing_replaces_the_old_folder_and_leaves_nothing_else(tmp_path: Path) -> None:
    for version in ("one", "two"):
        source = tmp_path / version
        source.mkdir()
        (source / version).touch()
        place(source, tmp_path / "out" / "adapter")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["adapter"]
    assert [path.name for path in (tmp_path / "out" / "adapter").iterdir()] == ["two"]


def test_only_an_adapter_is_replaced(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.touch()
    for taken in (tmp_path, notes):
        with pytest.raises(AdapterError, match=f"{taken} is there already and is no adapter"):
            refuse_other_content(taken)
    refuse_other_content(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    refuse_other_content(tmp_path / "empty")
    (tmp_path / CONFIG_NAME).touch()
    refuse_other_content(tmp_path)
