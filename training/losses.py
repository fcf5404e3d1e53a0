"""The loss of every learned token of a pack, without the full logits.

The head is applied only where a token is learned, in chunks of rows; of each chunk the
backward pass keeps the gradient of its hidden states alone, never its logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy, softplus
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from training.attention import ATTENTION
from training.bare_head import bare_head
from training.last_layer import ends_early
from training.packing import Pack, bins, padded_bins

CHUNK_ELEMENTS = {"cpu": 1 << 21, "cuda": 1 << 27}
"""Logits held at once by kind of device: 8 MiB in float32, 512 MiB on a GPU."""
NARROWEST = 1024
"""Of a part of the vocabulary, however many rows there are."""


def token_losses(model: nn.Module, pack: Pack) -> Tensor:
    """(N,) float32: the cross-entropy, in nats, of each learned token of `pack`."""
    causal = causal_model(model)
    head = bare_head(causal)
    if head is None:
        inputs, positions = _inputs(causal, pack)
        logits: Tensor = causal(**inputs).logits.flatten(0, 1)[positions]
        return cross_entropy(logits.float(), pack.labels, reduction="none")
    return head_losses(head, learned_states(causal, pack), pack.labels)


def passes(model: nn.Module, groups: Sequence[Sequence[int]], budget: int) -> list[list[int]]:
    """The indices of groups of sequences, by their lengths, that `model` computes at once.

    With its padding, where there is any, a pass has at most `budget` tokens or a single group.
    """
    if _packs(causal_model(model)):
        return bins([sum(group) for group in groups], budget)
    return padded_bins(groups, budget)


def learned_states(causal: PreTrainedModel, pack: Pack) -> Tensor:
    """(N, D) what the head is to see: the hidden states from which a token is learned."""
    inputs, positions = _inputs(causal, pack)
    if ends_early(causal) and _packs(causal):
        states: Tensor = causal.base_model(**inputs, positions=positions, ends=pack.ends)[0]
        return states[0]
    states = causal.base_model(**inputs)[0]
    return states.flatten(0, 1).index_select(0, positions)


def _packs(causal: PreTrainedModel) -> bool:
    return bool(causal.config._attn_implementation == ATTENTION)


def _inputs(causal: PreTrainedModel, pack: Pack) -> tuple[dict[str, Any], Tensor]:
    return _packed(pack) if _packs(causal) else _padded(pack)


def _packed(pack: Pack) -> tuple[dict[str, Any], Tensor]:
    """The model's inputs, and where in its flattened output the learned positions are."""
    inputs = {
        "input_ids": pack.input_ids,
        "position_ids": pack.position_ids,
        "borders": pack.borders,
        "use_cache": False,
    }
    return inputs, pack.positions


def _padded(pack: Pack) -> tuple[dict[str, Any], Tensor]:
    """The same for a model that cannot compute packs: a row for each sequence.

    No attention mask: padding lies on the right, where causal attention never looks.
    """
    sequences = torch.split(pack.input_ids[0], list(pack.borders.lengths))
    ids = torch.nn.utils.rnn.pad_sequence(list(sequences), batch_first=True)
    starts = pack.borders.cumulative[:-1].long() - ids.shape[1] * torch.arange(
        len(sequences), device=ids.device
    )
    return {"input_ids": ids, "use_cache": False}, pack.positions - starts[pack.owners]


def head_losses(head: nn.Module, hidden: Tensor, labels: Tensor) -> Tensor:
    """(N,) float32 cross-entropy of `head` on `hidden` (N, D) against `labels` (N,).

    A head that is trained itself keeps its chunks' inputs and computes them twice.
    """
    at_once = CHUNK_ELEMENTS[hidden.device.type]
    if type(head) is nn.Linear and not any(p.requires_grad for p in head.parameters()):
        frozen: Any = _FrozenHead.apply
        width = min(len(head.weight), max(NARROWEST, at_once // max(1, len(hidden))))
        losses: Tensor = frozen(hidden, head.weight, head.bias, labels, width)
        return losses
    rows = max(1, at_once // _num_labels(head))

    def chunk_losses(part: Tensor, wanted: Tensor) -> Tensor:
        return cross_entropy(head(part).float(), wanted, reduction="none")

    return torch.cat(
        [
            checkpoint(chunk_losses, part, wanted, use_reentrant=False)
            for part, wanted in zip(
                torch.split(hidden, rows), torch.split(labels, rows), strict=True
            )
        ]
    )


def causal_model(model: nn.Module) -> PreTrainedModel:
    """The transformers model inside a PEFT wrapper, whose layers PEFT changed in place."""
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(inner, PreTrainedModel)
    return inner


def _num_labels(head: nn.Module) -> int:
    weight: Any = getattr(head, "base_layer", head).weight
    return int(weight.shape[0])


class _FrozenHead(torch.autograd.Function):
    """hidden (N, D), weight (V, D), bias (V,) or None, labels (N,) → losses (N,).

    d loss / d logits = softmax(logits) − onehot(label), so that the gradient of the hidden
    states can be taken while a part's logits are still there. Parts are of the vocabulary,
    so that the weights are read once; sums of powers are scaled anew where a part holds a
    larger logit than those before it (Milakov and Gimelshein, 2018).
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, width: int
    ) -> Tensor:
        gradient = torch.zeros_like(hidden, dtype=torch.float32)
        # The label's own logit is kept apart: near a loss of 0 nothing of it is rounded away.
        own = (hidden.float() * weight[labels].float()).sum(1, keepdim=True)
        if bias is not None:
            own += bias[labels, None]
        peak = torch.full_like(own, -torch.inf)
        others = torch.zeros_like(own)
        # One buffer for all parts: memory that is new each time costs page faults.
        buffer = weight.new_empty(len(hidden) * width)
        for start in range(0, len(weight), width):
            part = weight[start : start + width]
            logits = buffer[: len(hidden) * len(part)].view(len(hidden), len(part))
            torch.mm(hidden, part.T, out=logits)
            if bias is not None:
                logits += bias[start : start + width]
            _leave_out(logits, labels - start)
            powers = logits.float()  # the same, where it is float32 already
            higher = torch.maximum(peak, powers.amax(1, keepdim=True))
            powers.sub_(higher).exp_()
            scale = (peak - higher).exp_()
            others.mul_(scale).add_(powers.sum(1, keepdim=True))
            if ctx.needs_input_grad[0]:
                gradient.mul_(scale).add_(powers.to(weight.dtype) @ part)
            peak = higher
        # With p(label) = 1 / (1 + exp(excess)), the loss is log(1 + exp(excess)).
        excess = others.log() + peak - own
        gradient.div_(others).sub_(weight[labels]).mul_(excess.sigmoid())
        ctx.save_for_backward(gradient.to(hidden.dtype))
        return softplus(excess)[:, 0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad[:, None].to(gradient.dtype), None, None, None, None


def _leave_out(logits: Tensor, places: Tensor) -> None:
    """Of each row the logit at its place, where `logits` (N, V) have one there."""
    columns = places.clamp(0, logits.shape[1] - 1)[:, None]
    outside = columns[:, 0] != places
    kept = logits.gather(1, columns).masked_fill_(~outside[:, None], -torch.inf)
    logits.scatter_(1, columns, kept)
