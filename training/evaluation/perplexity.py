"""How likely a model finds the right answers: their loss, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from training.encoding import Example, encode
from training.evaluation.suite import EvalExample
from training.losses import causal_model
from training.objectives import Objective
from training.schedule import ObjectiveSettings

_PASS_TOKENS = 4096
_MAX_TOKENS = 1 << 20


@dataclass(frozen=True)
class ReferenceLoss:
    """The loss of one reference; nothing of it where it does not fit the model's context."""

    nats: float = 0.0
    num_tokens: int = 0


def reference_losses(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, examples: Sequence[EvalExample]
) -> list[ReferenceLoss]:
    """The loss of every example's reference after its prompt, in the examples' order."""
    causal = causal_model(model)
    room = getattr(causal.config, "max_position_embeddings", None) or _MAX_TOKENS
    encoded = {
        place: found[0]
        for place, example in enumerate(examples)
        if (found := encode(_answered(example), tokenizer, max_tokens=room)) is not None
    }
    # Of like length, so that little is padded.
    order = sorted(encoded, key=lambda place: len(encoded[place].input_ids))
    device = next(model.parameters()).device
    likelihoods = Objective(
        ObjectiveSettings(), device=torch.device(device), tokens_per_pass=_PASS_TOKENS
    ).log_likelihoods(model, [encoded[place] for place in order])
    losses = [ReferenceLoss()] * len(examples)
    for place, likelihood in zip(order, likelihoods.tolist(), strict=True):
        losses[place] = ReferenceLoss(-likelihood, encoded[place].num_learned)
    return losses


def _answered(example: EvalExample) -> Example:
    answer = {"role": "assistant", "content": example.reference}
    return Example(id=example.id, messages=(*example.messages, answer))
