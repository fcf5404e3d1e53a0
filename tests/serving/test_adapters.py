"""An adapter that cannot be used keeps no other from being served."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from registry.base_model import folder_digest
from serving.adapters import AdapterKeeper, OwnBase
from serving.engine.continuous import TorchEngine
from serving.errors import AdapterError
from tests.serving.conftest import Installation


def trained_on(adapter: Path, folder: Path, base: dict[str, str]) -> Path:
    """A copy of an adapter whose manifest tells of this base model."""
    shutil.copytree(adapter, folder)
    (folder / "manifest.json").write_text(json.dumps({"base_model": base}))
    return folder


@pytest.mark.parametrize(
    ("path", "text"),
    [("adapter_config.json", "{}"), ("adapter_config.json", "[]"), ("manifest.json", "[]")],
)
def test_a_broken_adapter_is_refused_and_the_others_are_loaded(
    installation: Installation,
    adapters: dict[str, Path],
    tiny_base: Path,
    tmp_path: Path,
    path: str,
    text: str,
) -> None:
    broken = shutil.copytree(adapters["one"], tmp_path / "broken")
    (broken / path).write_text(text)
    keeper = AdapterKeeper(
        TorchEngine(str(tiny_base)), installation.store, base=OwnBase(str(tiny_base))
    )
    live = {
        "broken": installation.store.publish(broken),
        "good": installation.store.publish(adapters["two"]),
    }
    keeper.follow(live)
    assert keeper.loaded == {"good": live["good"]}
    assert list(keeper.refused) == ["broken"]


def test_an_adapter_of_another_base_is_refused(
    adapters: dict[str, Path], tiny_base: Path, tmp_path: Path
) -> None:
    base, digest = OwnBase(str(tiny_base)), folder_digest(tiny_base)
    taken = [
        {"id": str(tiny_base), "digest": "sha256:changed in its place"},
        {"id": "where it was", "digest": digest},
    ]
    for number, told in enumerate(taken):
        base.refuse_others(trained_on(adapters["one"], tmp_path / f"taken-{number}", told))
    base.refuse_others(adapters["one"])
    other = {"id": "Qwen/Qwen3-0.6B-Base", "digest": "revision:0123"}
    stranger = trained_on(adapters["one"], tmp_path / "other", other)
    with pytest.raises(AdapterError, match=r"trained on Qwen/Qwen3-0\.6B-Base .*this replica"):
        base.refuse_others(stranger)
    with pytest.raises(AdapterError, match=r"serves Qwen/Qwen3-0\.6B \(not a folder"):
        OwnBase("Qwen/Qwen3-0.6B").refuse_others(stranger)


def test_an_adapter_of_an_earlier_embedded_model_is_refused(
    adapters: dict[str, Path], tmp_path: Path
) -> None:
    earlier = {"id": "embedded", "digest": "sha256:earlier"}
    with pytest.raises(AdapterError, match="trained on embedded"):
        OwnBase("embedded").refuse_others(trained_on(adapters["one"], tmp_path / "a", earlier))
