"""Has a model's last layer compute no more than what the loss is taken from.

After the last attention no token looks at another, so that the rest of that layer is wanted
only where a token is learned. Prompts, which are most of what is read, end there.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from training.attention import Borders

_PARTS = {"input_layernorm", "self_attn", "post_attention_layernorm", "mlp"}
"""Of the layer that Llama, Mistral and Qwen share; what has other parts computes in full."""


def end_early(model: PreTrainedModel) -> bool:
    """Has the last layer of `model` take `positions` and `ends`; returns whether it can.

    It then gives back (1, N, D), those positions alone, and is never recomputed: on the way
    back it comes first, when its activations are needed at once.
    """
    layer = _last_layer(model)
    if layer is None or {name for name, _ in layer.named_children()} != _PARTS:
        return False
    layer.forward = MethodType(_forward, layer)
    return True


def end_as_ever(model: PreTrainedModel) -> None:
    """Takes back what `end_early` has changed."""
    if ends_early(model):
        del _last_layer(model).forward  # type: ignore[union-attr]


def ends_early(model: PreTrainedModel) -> bool:
    """Whether `end_early` has changed the model."""
    own = getattr(_last_layer(model), "forward", None)
    return getattr(own, "__func__", None) is _forward


def _last_layer(model: PreTrainedModel) -> nn.Module | None:
    layers = getattr(model.base_model, "layers", None)
    return layers[-1] if isinstance(layers, nn.ModuleList) and len(layers) else None


def _forward(
    layer: Any,
    hidden_states: Tensor,
    *args: Any,
    positions: Tensor | None = None,
    ends: Borders | None = None,
    **kwargs: Any,
) -> Tensor:
    if positions is None:
        output: Tensor = type(layer).forward(layer, hidden_states, *args, **kwargs)
        return output
    normed = layer.input_layernorm(hidden_states)
    attended, _ = layer.self_attn(normed, *args, **kwargs | {"borders": ends})
    rows: Tensor = (hidden_states + attended).index_select(1, positions)
    result: Tensor = rows + layer.mlp(layer.post_attention_layernorm(rows))
    return result
