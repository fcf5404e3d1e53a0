from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from training.base import base_digest, load_base, load_tokenizer, resolve_base
from training.base_model import PATH
from training.errors import BaseModelError


def test_embedded_names_the_shipped_folder_and_other_names_stay() -> None:
    assert resolve_base("embedded") == str(PATH)
    assert resolve_base("Qwen/Qwen3-0.6B") == "Qwen/Qwen3-0.6B"


def test_digest_follows_the_files_that_are_loaded(tiny_base: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_base, copy)
    (copy / "README.md").write_text("A note.")
    assert base_digest(copy) == base_digest(tiny_base)
    (copy / "config.json").write_text((copy / "config.json").read_text() + "\n")
    assert base_digest(copy) != base_digest(tiny_base)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="holds no model files"):
        base_digest(tmp_path)
    with pytest.raises(BaseModelError, match=r"Base model '.*' cannot be loaded: "):
        load_base(str(tmp_path))
    with pytest.raises(BaseModelError, match=r"Base model '.*' cannot be loaded: "):
        load_tokenizer(str(tmp_path))
    with pytest.raises(BaseModelError, match="'no/such-model' cannot be loaded"):
        base_digest("no/such-model")


def test_a_tokenizer_without_padding_pads_with_its_end_token(
    tiny_base: str, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(tiny_base)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path)).pad_token == tokenizer.eos_token
