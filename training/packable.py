"""Whether a model computes a pack as it computes its sequences one by one; asked of the model.

Hybrid models carry state across borders, and some attention needs what packing does not
offer. Those are trained on padded batches instead: slower, and as right. What computes neither
is not trained.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from training.attention import ATTENTION
from training.bare_head import look_at_head
from training.encoding import Encoded
from training.errors import BaseModelError
from training.last_layer import end_as_ever, end_early
from training.losses import causal_model, learned_states, token_losses
from training.packing import collate

logger = logging.getLogger(__name__)

_PROBE_LENGTHS = (5, 3, 7)
_COARSE = 0.1
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: _COARSE, torch.float16: 2e-2}
"""Of the difference of losses in nats, by precision: rounding, and no token of another's."""
_ROUNDING = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 5e-3}
"""Of the relative difference of hidden states."""


def enable_packing(model: PreTrainedModel) -> bool:
    """Has `model` compute packs from here on, if it can; returns whether it can.

    Losses on a small pack are compared with the model's own logits, sequence by sequence.
    BaseModelError where those of a padded batch differ from them, too.
    """
    own = model.config._attn_implementation
    probe = _probe(model)
    expected = _own_losses(model, probe)
    look_at_head(model)
    try:
        model.set_attn_implementation(ATTENTION)
        difference = float(_differences(model, probe, expected).max())
    except (BaseModelError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error)
    else:
        if difference <= _tolerance(model):
            _end_early_if_it_fits(model, probe)
            return True
        reason = f"losses differ by up to {difference:.2g} nats"
    model.set_attn_implementation(own)
    logger.warning(
        "%s is trained on padded batches, since packing does not fit it: %s",
        type(model).__name__,
        reason,
    )
    _refuse_wrong_batches(model, probe, expected)
    return False


def _refuse_wrong_batches(
    model: PreTrainedModel, probe: list[Encoded], expected: torch.Tensor
) -> None:
    # By the mean: rounding alone may have a router send one token elsewhere.
    difference = float(_differences(model, probe, expected).mean())
    if not difference <= _tolerance(model):
        raise BaseModelError(
            f"{type(model).__name__} cannot be trained: in a padded batch its losses differ by "
            f"{difference:.2g} nats from those of the same sequences one by one, as where a "
            "token attends to later ones. Choose a causal language model."
        )


@torch.no_grad()
def _end_early_if_it_fits(model: PreTrainedModel, probe: list[Encoded]) -> None:
    """Compared with the same model's whole layer, so that nothing but rounding may differ."""
    pack = collate(probe, device=model.device)
    whole = learned_states(model, pack)
    if not end_early(model):
        return
    try:
        found = learned_states(model, pack)
        fits = float((found - whole).norm() / whole.norm()) <= _ROUNDING.get(model.dtype, _COARSE)
    except (TypeError, ValueError, RuntimeError):
        fits = False
    if not fits:
        end_as_ever(model)


@torch.no_grad()
def _differences(
    model: PreTrainedModel, probe: list[Encoded], expected: torch.Tensor
) -> torch.Tensor:
    """Of the loss of each learned token of a pack, in nats."""
    return (token_losses(model, collate(probe, device=model.device)) - expected).abs()


def _tolerance(model: PreTrainedModel) -> float:
    return _TOLERANCE.get(model.dtype, _COARSE)


def recompute_activations(model: nn.Module) -> None:
    """Has `model` compute its layers' activations again on the way back, instead of keeping them.

    BaseModelError where it cannot.
    """
    causal = causal_model(model)
    if not causal.supports_gradient_checkpointing:
        raise BaseModelError(
            f"{type(causal).__name__} cannot recompute activations (recipe: workers.recompute)."
        )
    causal.activation_checkpointing_enable({"use_reentrant": False})


def _probe(model: PreTrainedModel) -> list[Encoded]:
    rng = np.random.default_rng(0)
    embeddings: Any = model.get_input_embeddings()
    vocabulary = embeddings.weight.shape[0]
    return [
        Encoded(
            input_ids=rng.integers(0, vocabulary, length).astype(np.int32), num_learned=length - 1
        )
        for length in _PROBE_LENGTHS
    ]


def _own_losses(model: PreTrainedModel, sequences: list[Encoded]) -> torch.Tensor:
    losses = []
    for sequence in sequences:
        ids = torch.from_numpy(sequence.input_ids).long().to(model.device)
        with torch.no_grad():
            logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1].float()
        losses.append(functional.cross_entropy(logits, ids[1:], reduction="none"))
    return torch.cat(losses)
