"""What a recipe makes of bases that were trained otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, OPTConfig, PhiConfig, PreTrainedConfig

from training.attention import ATTENTION
from training.config import load_recipe
from training.encoding import Encoded
from training.losses import causal_model, token_losses
from training.packing import collate
from training.setup import adapted_base

SHAPE = {
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SHAPE, attention_dropout=0.5),
        # Beside its attention, in layers of its own and between them.
        PhiConfig(**SHAPE, attention_dropout=0.5, resid_pdrop=0.5, embd_pdrop=0.5),
        OPTConfig(**SHAPE, ffn_dim=48, attention_dropout=0.5, dropout=0.5, layerdrop=0.5),
    ],
    ids=["llama", "phi", "opt"],
)
def test_a_base_that_was_trained_with_dropout_drops_nothing(
    config: PreTrainedConfig, encoded: tuple[Encoded, ...], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    model = adapted_base(load_recipe("tiny_cpu"), str(tmp_path), parent=None, device=CPU)
    assert causal_model(model).config._attn_implementation == ATTENTION
    pack = collate(encoded, device=CPU)
    found = token_losses(model.train(), pack)
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert torch.equal(found, token_losses(model.eval(), pack))
