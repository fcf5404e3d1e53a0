from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from training.thin_norm import make_norms_thin


@pytest.mark.parametrize("kind", [Qwen3RMSNorm, nn.RMSNorm])
def test_output_and_gradient_are_those_of_the_norm_itself(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    plain = _norm(kind, 12)
    thin = copy.deepcopy(plain)
    assert make_norms_thin(thin) == 1
    x = torch.randn(2, 5, 3, 12, requires_grad=True)
    upstream = torch.randn_like(x)
    torch.testing.assert_close(_out_and_back(thin, x, upstream), _out_and_back(plain, x, upstream))


def test_another_formula_precision_or_a_weight_that_learns_is_left_alone() -> None:
    learns = _norm(Qwen3RMSNorm, 4).requires_grad_(True)
    others = [_norm(Gemma2RMSNorm, 4), _norm(Qwen3RMSNorm, 4).bfloat16(), learns, nn.LayerNorm(4)]
    assert make_norms_thin(nn.ModuleList(others)) == 0


def test_an_input_of_another_precision_takes_the_norms_own_way() -> None:
    plain = _norm(Qwen3RMSNorm, 4)
    thin = copy.deepcopy(plain)
    make_norms_thin(thin)
    x = torch.randn(3, 4).bfloat16()
    assert torch.equal(thin(x), plain(x))


def _norm(kind: type[nn.Module], width: int) -> nn.Module:
    norm = kind(width, eps=1e-6).requires_grad_(False)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)  # type: ignore[operator]
    return norm


def _out_and_back(
    norm: nn.Module, x: torch.Tensor, upstream: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    output = norm(x)
    return output, torch.autograd.grad(output, x, upstream)[0]
