from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from tests.training import test_loop
from training.base import load_base
from training.encoding import Encoded
from training.errors import AdapterError
from training.lora import (
    WEIGHTS_NAME,
    attach_adapter,
    continue_adapter,
    new_adapter,
    write_adapter,
)
from training.losses import token_losses
from training.packing import collate
from training.transport import CONFIG_NAME


def _adapter(tiny_base: str, seed: int = 0) -> PeftModel:
    return new_adapter(
        load_base(tiny_base), rank=4, alpha=8, dropout=0.0, target_modules="all-linear", seed=seed
    )


def test_only_lora_weights_train_and_the_head_has_none(tiny_base: str) -> None:
    names = [name for name, p in _adapter(tiny_base).named_parameters() if p.requires_grad]
    assert len(names) == 2 * 7 * 2
    assert all("lora_" in name and "lm_head" not in name for name in names)


def test_same_seed_writes_the_same_bytes(tiny_base: str, tmp_path: Path) -> None:
    for folder, seed in [("a", 0), ("b", 0), ("c", 1)]:
        write_adapter(_adapter(tiny_base, seed), tmp_path / folder, base_id="embedded")
    for name in (WEIGHTS_NAME, CONFIG_NAME):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    different = (tmp_path / "c" / WEIGHTS_NAME).read_bytes()
    assert different != (tmp_path / "a" / WEIGHTS_NAME).read_bytes()


def test_written_adapter_is_a_peft_adapter_that_names_its_base(
    tiny_base: str, tmp_path: Path
) -> None:
    model = _adapter(tiny_base)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
    write_adapter(model, tmp_path / "adapter", base_id="embedded")
    config = json.loads((tmp_path / "adapter" / CONFIG_NAME).read_text())
    assert config["base_model_name_or_path"] == "embedded"
    ids = torch.arange(3, 9)[None]
    loaded = attach_adapter(load_base(tiny_base), tmp_path / "adapter", trainable=False)
    plain = load_base(tiny_base)
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=ids).logits, model(input_ids=ids).logits)
        assert not torch.allclose(loaded(input_ids=ids).logits, plain(input_ids=ids).logits)


def test_continuing_trains_the_parents_weights(tiny_base: str, tmp_path: Path) -> None:
    write_adapter(_adapter(tiny_base), tmp_path / "parent", base_id="embedded")
    child = continue_adapter(load_base(tiny_base), tmp_path / "parent", base_id="embedded")
    parent = _adapter(tiny_base)
    for (name, got), (_, expected) in zip(
        child.named_parameters(), parent.named_parameters(), strict=True
    ):
        assert torch.equal(got, expected)
        assert got.requires_grad == ("lora_" in name)


def test_an_adapter_of_another_base_is_refused(tiny_base: str, tmp_path: Path) -> None:
    write_adapter(_adapter(tiny_base), tmp_path / "parent", base_id="other")
    with pytest.raises(AdapterError, match="trained on 'other', not on 'embedded'"):
        continue_adapter(load_base(tiny_base), tmp_path / "parent", base_id="embedded")


def test_what_is_no_adapter_is_refused(tiny_base: str, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="holds no adapter_model"):
        attach_adapter(load_base(tiny_base), tmp_path, trainable=False)
    with pytest.raises(AdapterError, match="LoRA does not fit the base"):
        new_adapter(
            load_base(tiny_base), rank=4, alpha=8, dropout=0, target_modules=("nope",), seed=0
        )


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's own
def test_an_adapter_trained_in_packs_loads_and_merges_as_any_peft_adapter(
    tiny_base: str, encoded: tuple[Encoded, ...], tmp_path: Path
) -> None:
    loop = test_loop._loop(test_loop._model(tiny_base), encoded)
    loop.run(test_loop._ignore)
    assert isinstance(loop.model, PeftModel)
    write_adapter(loop.model, tmp_path / "adapter", base_id=tiny_base)
    loaded = PeftModel.from_pretrained(load_base(tiny_base), str(tmp_path / "adapter")).eval()
    merged = PeftModel.from_pretrained(load_base(tiny_base), str(tmp_path / "adapter"))
    whole = merged.merge_and_unload().eval()
    pack = collate(encoded, device=torch.device("cpu"))
    loop.model.eval()
    with torch.no_grad():
        expected = token_losses(loop.model, pack)
        torch.testing.assert_close(token_losses(loaded, pack), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(token_losses(whole, pack), expected, rtol=1e-4, atol=1e-5)
        plain = token_losses(load_base(tiny_base), pack)
    assert not torch.allclose(plain, expected, atol=1e-2)
