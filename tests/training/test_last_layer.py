"""What the last layer leaves out, and that nobody can tell."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GraniteConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from training.encoding import Encoded
from training.last_layer import end_as_ever, ends_early
from training.losses import token_losses
from training.packable import enable_packing, recompute_activations
from training.packing import Pack, collate

SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 2048,
}


def _model(config: PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model


@pytest.fixture
def pack(encoded: tuple[Encoded, ...]) -> Pack:
    return collate(encoded, device=torch.device("cpu"))


@pytest.mark.parametrize(
    ("config", "ends"),
    [
        (LlamaConfig(**SHAPE), True),
        # The same parts, put together in another way.
        (GraniteConfig(**SHAPE, residual_multiplier=0.3), False),
        (Gemma2Config(**SHAPE, attn_logit_softcapping=None), False),
    ],
    ids=["llama", "granite", "gemma2"],
)
def test_a_layer_ends_early_where_that_computes_the_same(
    config: PreTrainedConfig, ends: bool
) -> None:
    model = _model(config)
    assert enable_packing(model)
    assert ends_early(model) == ends


@pytest.mark.parametrize("recomputed", [False, True])
def test_losses_and_gradients_are_those_of_the_whole_layer(pack: Pack, recomputed: bool) -> None:
    found = []
    for whole in (False, True):
        model = _model(LlamaConfig(**SHAPE)).train()
        assert enable_packing(model)
        if whole:
            end_as_ever(model)
            assert not ends_early(model)
        if recomputed:
            recompute_activations(model)
        losses = token_losses(model, pack)
        found.append([losses, *torch.autograd.grad(losses.sum(), list(model.parameters()))])
    for early, expected in zip(*found, strict=True):
        torch.testing.assert_close(early, expected, rtol=1e-4, atol=1e-5)


def test_the_last_feed_forward_reads_learned_positions_alone(pack: Pack) -> None:
    model = _model(LlamaConfig(**SHAPE))
    assert enable_packing(model)
    rows: list[int] = []
    for layer in model.base_model.layers:
        layer.mlp.register_forward_hook(lambda _m, args, _out: rows.append(args[0].shape[1]))
    token_losses(model, pack)
    assert rows == [pack.input_ids.shape[1], len(pack.positions)]


def test_the_model_itself_still_answers_for_every_position(pack: Pack) -> None:
    model = _model(LlamaConfig(**SHAPE)).eval()
    plain = model(input_ids=pack.input_ids[:, :7]).logits
    assert enable_packing(model)
    model.set_attn_implementation("sdpa")
    torch.testing.assert_close(model(input_ids=pack.input_ids[:, :7]).logits, plain)
