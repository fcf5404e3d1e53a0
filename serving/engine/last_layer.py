"""Has a model's last layer compute no more than what its logits are taken from.

After the last attention no token looks at another, so that the rest of that layer is wanted
only where a token is chosen. Prompts, whose tokens are all given, end there.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import nn

_PARTS = {"input_layernorm", "self_attn", "post_attention_layernorm", "mlp"}
"""Of the layer that Llama, Mistral and Qwen share; what has other parts computes in full."""


def end_early(model: Any) -> nn.Module | None:
    """Has the last layer of `model` take `places` and give back (1, places, hidden).

    Returns the part that sees no other tokens then; None where the layer has other parts. A
    layer of these parts may still put them together in its own way: compare what it computes.
    """
    layers = getattr(model.base_model, "layers", None)
    layer: Any = layers[-1] if isinstance(layers, nn.ModuleList) and len(layers) else None
    if layer is None or {name for name, _ in layer.named_children()} != _PARTS:
        return None
    layer.forward = MethodType(_forward, layer)
    late: nn.Module = layer.mlp
    return late


def end_as_ever(model: Any) -> None:
    """Takes back what `end_early` has changed."""
    del model.base_model.layers[-1].forward


def _forward(
    layer: Any,
    hidden_states: torch.Tensor,
    *args: Any,
    places: torch.Tensor | None = None,
    **kwargs: Any,
) -> torch.Tensor:
    if places is None:
        output: torch.Tensor = type(layer).forward(layer, hidden_states, *args, **kwargs)
        return output
    attended, _ = layer.self_attn(layer.input_layernorm(hidden_states), *args, **kwargs)
    rows: torch.Tensor = (hidden_states + attended).index_select(1, places)
    result: torch.Tensor = rows + layer.mlp(layer.post_attention_layernorm(rows))
    return result
