"""Adapters in one pass compute what PEFT computes for each; unfit files are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from serving.engine.stacked_lora import StackedLora
from serving.errors import AdapterError, NotLoadedError


# PEFT asks transformers for a property that the latter has deprecated.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("others", [(), ("two",), ("two", None)])
def test_adapters_compute_what_peft_computes(
    tiny_base: Path, adapters: dict[str, Path], others: tuple[str | None, ...]
) -> None:
    tokens = torch.arange(3, 40)[None]
    base = AutoModelForCausalLM.from_pretrained(tiny_base)
    expected = PeftModel.from_pretrained(base, adapters["one"]).eval()(tokens).logits
    model = AutoModelForCausalLM.from_pretrained(tiny_base)
    lora = StackedLora(model)
    for name in ("one", "two"):
        lora.load(name, adapters[name])
    mine = lora.get("one")
    rows = [(mine, 37)] + [(lora.get(name) if name else None, 37) for name in others]
    batch = tokens.expand(len(rows), -1).reshape(len(rows), -1)
    with torch.inference_mode():
        if others:
            # One row's tokens after the other's, apart only by the mask of the attention.
            mask = torch.block_diag(*[torch.ones(37, 37).tril()] * len(rows))
            mask = torch.zeros_like(mask).masked_fill(mask == 0, -torch.inf)[None, None]
            positions = torch.arange(37).repeat(len(rows))[None]
            with lora.applied(rows, [36]):
                found = model(
                    batch.reshape(1, -1),
                    attention_mask=mask,
                    position_ids=positions,
                    use_cache=False,
                ).logits[:, :37]
        else:
            with lora.applied(rows, [36]):
                found = model(tokens, use_cache=False).logits
    torch.testing.assert_close(found, expected.detach(), atol=5e-5, rtol=1e-3)


def test_whoever_has_got_an_adapter_keeps_it(tiny_base: Path, adapters: dict[str, Path]) -> None:
    lora = StackedLora(AutoModelForCausalLM.from_pretrained(tiny_base))
    lora.load("one", adapters["one"])
    kept = lora.get("one")
    lora.unload("one")
    assert lora.names == frozenset()
    with pytest.raises(NotLoadedError, match="one"):
        lora.get("one")
    with lora.applied([(kept, 3)], [2]):
        assert lora._applied is not None


def test_files_that_are_no_fitting_adapter_are_refused(
    tiny_base: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    lora = StackedLora(AutoModelForCausalLM.from_pretrained(tiny_base))
    config = (adapters["one"] / "adapter_config.json").read_text()
    weights = (adapters["one"] / "adapter_model.safetensors").read_bytes()
    matrices = load_file(adapters["one"] / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(config)
    with pytest.raises(AdapterError, match="cannot read"):
        lora.load("none", tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(AdapterError, match="cannot read"):
        lora.load("garbage", tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "use_dora": true}')
    (tmp_path / "adapter_model.safetensors").write_bytes(weights)
    with pytest.raises(AdapterError, match="use_dora"):
        lora.load("dora", tmp_path)
    (tmp_path / "adapter_config.json").write_text(config)
    not_numbers = {name: tensor * float("nan") for name, tensor in matrices.items()}
    save_file(not_numbers, tmp_path / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match="not finite"):
        lora.load("nan", tmp_path)
    other = {name: tensor[:, :5].contiguous() for name, tensor in matrices.items()}
    save_file(other, tmp_path / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match="in the base model"):
        lora.load("small", tmp_path)
