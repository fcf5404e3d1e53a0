"""The slow and obvious way: one sequence at a time, from the full logits of a plain model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from training.encoding import Encoded


def padded_losses(model: torch.nn.Module, examples: Sequence[Encoded]) -> list[torch.Tensor]:
    """Of each example, the losses of its learned tokens, from one padded batch's full logits."""
    width = max(len(example.input_ids) for example in examples)
    ids = torch.zeros(len(examples), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, example in enumerate(examples):
        length = len(example.input_ids)
        ids[row, :length] = torch.from_numpy(example.input_ids)
        mask[row, :length] = 1
    logits = model(input_ids=ids, attention_mask=mask).logits
    losses = []
    for row, example in enumerate(examples):
        length = len(example.input_ids)
        all_of_it = functional.cross_entropy(
            logits[row, : length - 1], ids[row, 1:length], reduction="none"
        )
        losses.append(all_of_it[-example.num_learned :])
    return losses


def mean_loss(model: torch.nn.Module, examples: Sequence[Encoded]) -> torch.Tensor:
    """The weighted mean over all learned tokens."""
    losses = padded_losses(model, examples)
    total = sum(
        (example.weight * loss.sum() for example, loss in zip(examples, losses, strict=True)),
        torch.zeros(()),
    )
    return total / sum(example.weighted_tokens for example in examples)


def gradients(model: torch.nn.Module) -> torch.Tensor:
    """The gradients of all trained parameters, flat, in their order."""
    return torch.cat(
        [
            (torch.zeros_like(p) if p.grad is None else p.grad).flatten()
            for p in model.parameters()
            if p.requires_grad
        ]
    )
