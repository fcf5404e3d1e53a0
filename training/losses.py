"""Cross-entropy on the assistant's tokens.

Losses are sums; whoever steps the optimizer divides by the number of learned tokens in
the whole global batch, so that micro-batches and data-parallel workers give the same
gradient as one large batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from training.encoding import Encoded

# Models that scale or bend their logits after the head must compute them themselves.
_LOGIT_TRANSFORMS = ("final_logit_softcapping", "logits_scaling", "logit_scale")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Examples padded on the right to (B, T), and the N positions that carry the loss."""

    input_ids: Tensor
    """(B, T) int64."""
    positions: Tensor
    """(N,) int64: flat positions in B·T whose next token is learned."""
    labels: Tensor
    """(N,) int64: those next tokens."""
    weights: Tensor
    """(N,) float32: the weight of each in the sum."""


def collate(examples: Sequence[Encoded], *, pad_id: int, device: torch.device) -> Batch:
    """Pads `examples` into one batch on `device`."""
    width = max(len(example.input_ids) for example in examples)
    ids = np.full((len(examples), width), pad_id, dtype=np.int64)
    positions, labels, weights = [], [], []
    for row, example in enumerate(examples):
        length = len(example.input_ids)
        ids[row, :length] = example.input_ids
        first = length - example.num_learned
        positions.append(row * width + np.arange(first - 1, length - 1))
        labels.append(example.input_ids[first:])
        weights.append(np.full(example.num_learned, example.weight, dtype=np.float32))
    return Batch(
        input_ids=torch.from_numpy(ids).to(device),
        positions=torch.from_numpy(np.concatenate(positions)).to(device),
        labels=torch.from_numpy(np.concatenate(labels).astype(np.int64)).to(device),
        weights=torch.from_numpy(np.concatenate(weights)).to(device),
    )


def completion_logits(model: nn.Module, batch: Batch) -> Tensor:
    """(N, V) logits at the learned positions; the head sees no other position."""
    causal = _causal_model(model)
    if any(getattr(causal.config, name, None) for name in _LOGIT_TRANSFORMS):
        logits: Tensor = causal(input_ids=batch.input_ids, use_cache=False).logits
        return logits.flatten(0, 1)[batch.positions]
    # No attention mask: padding lies on the right, where causal attention never looks.
    hidden: Tensor = causal.base_model(input_ids=batch.input_ids, use_cache=False)[0]
    head = causal.get_output_embeddings()  # type: ignore[no-untyped-call]
    selected: Tensor = head(hidden.flatten(0, 1)[batch.positions])
    return selected


def completion_loss_sum(model: nn.Module, batch: Batch) -> Tensor:
    """The weighted sum, in nats, of the cross-entropy of every learned token: a scalar."""
    logits = completion_logits(model, batch).float()
    losses = functional.cross_entropy(logits, batch.labels, reduction="none")
    return (losses * batch.weights).sum()


def _causal_model(model: nn.Module) -> PreTrainedModel:
    """The transformers model inside a PEFT wrapper, whose layers PEFT changed in place."""
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(inner, PreTrainedModel)
    return inner
