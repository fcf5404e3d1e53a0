"""Muon: updates are nearly orthogonal, and a least-squares problem is solved."""

from __future__ import annotations

import pytest
import torch

from training.base_model.muon import Muon, orthogonalised


@pytest.mark.parametrize("shape", [(2, 16, 16), (1, 8, 24), (3, 24, 8)])
def test_singular_values_come_near_one(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalised(matrices))
    assert values.max() < 1.3
    assert values.median() > 0.6


def test_the_update_agrees_with_the_reference_in_torch() -> None:
    start = torch.randn(12, 20, generator=torch.Generator().manual_seed(1))
    ours, reference = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    optimizers = (
        Muon([ours], lr=0.1),
        torch.optim.Muon([reference], lr=0.1, momentum=0.95, weight_decay=0.0),
    )
    for weight, optimizer in zip((ours, reference), optimizers, strict=True):
        for _ in range(3):
            optimizer.zero_grad()
            weight.square().sum().backward()
            optimizer.step()
    # The reference iterates in bf16.
    torch.testing.assert_close(ours, reference, atol=0.02, rtol=0.02)


def test_matrices_of_one_shape_are_updated_independently() -> None:
    first, second = (torch.nn.Parameter(torch.eye(4)) for _ in range(2))
    optimizer = Muon([first, second], lr=0.1)
    first.grad, second.grad = torch.eye(4), -torch.eye(4)
    optimizer.step()
    assert first[0, 0] < 1 < second[0, 0]
