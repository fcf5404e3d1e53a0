"""Models that do something to their logits besides what their head does."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    FalconH1Config,
    Gemma2Config,
    GraniteConfig,
    LlamaConfig,
    MiniCPM3Config,
    PreTrainedConfig,
    PreTrainedModel,
    RecurrentGemmaConfig,
)

from tests.training.reference import padded_losses
from training.bare_head import bare_head
from training.encoding import Encoded
from training.errors import BaseModelError
from training.losses import token_losses
from training.packable import enable_packing
from training.packing import collate

SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 512,
    # Ten times the usual, so that the logits of so few dimensions differ.
    "initializer_range": 0.2,
}
DEEPER = SHAPE | {"num_hidden_layers": 3}  # the third is the first that attends
MINI = SHAPE | {
    "num_key_value_heads": 4,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 4,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "dim_model_base": 8,
}
MAMBA = {
    "mamba_d_ssm": 32,
    "mamba_n_heads": 4,
    "mamba_d_state": 8,
    "mamba_chunk_size": 8,
}


def _model(config: PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model.eval()


@pytest.mark.parametrize(
    ("config", "packs", "bare"),
    [
        (LlamaConfig(**SHAPE), True, True),
        (GraniteConfig(**SHAPE, logits_scaling=1.0), True, True),
        (GraniteConfig(**SHAPE, logits_scaling=4.0), True, False),
        (CohereConfig(**SHAPE), True, False),
        (Gemma2Config(**SHAPE, attn_logit_softcapping=None), True, False),
        (FalconH1Config(**SHAPE, **MAMBA), False, True),
        (FalconH1Config(**SHAPE, **MAMBA, lm_head_multiplier=0.3), False, False),
        # Scales the states that its head takes.
        (MiniCPM3Config(**MINI), True, False),
        (RecurrentGemmaConfig(**DEEPER, lru_width=32, logits_soft_cap=3.0), False, False),
    ],
    ids=[
        "llama",
        "granite-1",
        "granite-4",
        "cohere",
        "gemma2",
        "falcon-h1",
        "falcon-h1-scaled",
        "minicpm3",
        "recurrent-gemma",
    ],
)
def test_losses_are_those_of_the_models_own_logits(
    config: PreTrainedConfig, packs: bool, bare: bool, encoded: tuple[Encoded, ...]
) -> None:
    model = _model(config)
    plain = copy.deepcopy(model)
    assert enable_packing(model) == packs
    assert (bare_head(model) is not None) == bare
    with torch.no_grad():
        got = token_losses(model, collate(encoded, device=model.device))
        expected = torch.cat(padded_losses(plain, encoded))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_a_base_that_looks_ahead_is_refused() -> None:
    model = _model(LlamaConfig(**SHAPE))
    for layer in model.base_model.layers:
        layer.self_attn.is_causal = False
    with pytest.raises(BaseModelError, match=r"LlamaForCausalLM cannot be trained: .* nats"):
        enable_packing(model)
