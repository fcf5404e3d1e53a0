"""A LoRA layer's arithmetic with as little held and copied as possible.

y = x·Wᵀ + b + s·(x·Aᵀ)·Bᵀ, with W and b frozen. PEFT's own forward leaves autograd six
operations of full width per layer, and keeps a float32 copy of x where the base is
bfloat16; here the update is added in place, and of the forward pass only x and x·Aᵀ are
kept. The layers stay PEFT's: saving, loading and merging never see the difference.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def make_thin(model: nn.Module) -> int:
    """Has every plain LoRA linear of `model` compute thinly; returns how many those are.

    What is more than plain (DoRA, several adapters, a quantised base, a bias of its own)
    keeps PEFT's forward. A layer that is switched off, merged or asked for other adapters
    falls back to PEFT's as well, call by call.
    """
    found = [module for module in model.modules() if _is_plain(module)]
    for module in found:
        module.forward = MethodType(_forward, module)
    return len(found)


def _is_plain(module: nn.Module) -> bool:
    return (
        type(module) is LoraLinear
        and type(module.base_layer) is nn.Linear
        and len(module.lora_A) == 1
        and not module.lora_variant
        and not module.fan_in_fan_out
        and all(layer.bias is None for layer in [*module.lora_A.values(), *module.lora_B.values()])
        and not any(parameter.requires_grad for parameter in module.base_layer.parameters())
    )


def _forward(layer: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if args or kwargs or layer.disable_adapters or layer.merged:
        output: Tensor = LoraLinear.forward(layer, x, *args, **kwargs)
        return output
    (name,) = layer.active_adapters
    base, dropout = layer.base_layer, layer.lora_dropout[name]
    rate = dropout.p if isinstance(dropout, nn.Dropout) and layer.training else 0.0
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    thin: Any = _ThinLora.apply
    result: Tensor = thin(x, base.weight, base.bias, a, b, layer.scaling[name], rate)
    return result


class _ThinLora(torch.autograd.Function):
    """x (…, in), w (out, in), bias (out) or None, a (r, in), b (out, r) → (…, out)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        w: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scale: float,
        rate: float,
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        kept = None if rate == 0 else torch.empty_like(rows).bernoulli_(1 - rate).div_(1 - rate)
        inner = (rows if kept is None else rows * kept) @ a.to(x.dtype).T
        output = torch.nn.functional.linear(rows, w, bias)
        output.addmm_(inner, b.to(x.dtype).T, alpha=scale)
        ctx.save_for_backward(rows, kept, inner, w, a, b)
        ctx.scale, ctx.shape = scale, x.shape
        return output.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, kept, inner, w, a, b = ctx.saved_tensors
        grad = grad.reshape(-1, grad.shape[-1])
        grad_inner = (grad @ b.to(grad.dtype)) * ctx.scale
        grad_b = (grad.T @ inner).mul_(ctx.scale).to(b.dtype)
        grad_a = (grad_inner.T @ (rows if kept is None else rows * kept)).to(a.dtype)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = grad @ w
            if kept is None:
                grad_x.addmm_(grad_inner, a.to(grad.dtype))
            else:
                grad_x.addcmul_(grad_inner @ a.to(grad.dtype), kept)
            grad_x = grad_x.view(ctx.shape)
        return grad_x, None, None, grad_a, grad_b, None, None
