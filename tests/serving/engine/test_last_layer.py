"""The last layer computes what is wanted alone, in models where that changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import Gemma3TextConfig, GraniteConfig, LlamaConfig

from serving.engine.attention import Feed, Step
from serving.engine.cache import KvCache
from serving.engine.model import ChatModel
from tests.serving.engine.test_model import SHAPE, random_model

TOKENS = list(range(3, 20))


def loaded(base: Path, config: Any) -> ChatModel:
    model = random_model(config)
    return ChatModel(str(base), device=torch.device("cpu"), dtype=torch.float32, model=model)


@torch.inference_mode()
def logits(model: ChatModel, wanted: list[int]) -> torch.Tensor:
    cache = KvCache(
        model.shapes,
        budget=64,
        context=64,
        max_rows=1,
        device=model.device,
        dtype=model.dtype,
    )
    row = cache.take(len(TOKENS))
    assert row is not None
    return model.run(Step([Feed(row, TOKENS)], model.device), wanted)


@torch.inference_mode()
def expected(model: ChatModel, wanted: list[int]) -> torch.Tensor:
    with model._plain():
        found: torch.Tensor = model.module(torch.tensor([TOKENS]), use_cache=False).logits
    return found[0, wanted]


@pytest.mark.parametrize("wanted", [[16], [0, 7, 16], []])
def test_the_last_feed_forward_part_sees_what_is_wanted(tiny_base: Path, wanted: list[int]) -> None:
    model = loaded(tiny_base, LlamaConfig(**SHAPE))
    seen = []
    assert isinstance(model.late, nn.Module)
    hook = model.late.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    found = logits(model, wanted)
    hook.remove()
    assert seen == [len(wanted)]
    torch.testing.assert_close(found, expected(model, wanted), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        # The same parts, but what each adds is scaled.
        GraniteConfig(**SHAPE, residual_multiplier=0.3),
        # More norms than one around each part.
        Gemma3TextConfig(**SHAPE),
    ],
)
def test_a_layer_made_otherwise_computes_in_full(tiny_base: Path, config: Any) -> None:
    model = loaded(tiny_base, config)
    assert model.late is None
    found = logits(model, [0, 16])
    torch.testing.assert_close(found, expected(model, [0, 16]), rtol=1e-3, atol=1e-4)
