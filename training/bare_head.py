"""Whether a model's logits are what its head makes of its last hidden states; asked of the model.

Some models scale or bend theirs before or after the head, each by a setting that it names in
its own way. Those are left to compute all logits of a pass themselves.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

_PROBE_LENGTH = 5
_FOUND: WeakSet[PreTrainedModel] = WeakSet()


def bare_head(model: PreTrainedModel) -> nn.Module | None:
    """The head, where `look_at_head` has found nothing but it between states and logits."""
    return _head(model) if model in _FOUND else None


def look_at_head(model: PreTrainedModel) -> None:
    """Has losses be computed by the head alone from here on, where that comes to the same.

    `model` has no adapter yet. One that nobody has looked at computes its logits itself.
    """
    head = _head(model)
    if head is not None and _is_bare(model, head):
        _FOUND.add(model)


@torch.no_grad()
def _is_bare(model: PreTrainedModel, head: nn.Module) -> bool:
    """Compared within one pass, to the last bit: small logits are bent by little."""
    passed: list[Tensor] = []

    def of_base(_module: nn.Module, _args: Any, output: Any) -> None:
        passed.append(output[0].clone())

    def of_head(_module: nn.Module, args: Any, output: Any) -> None:
        # Copies, since what follows may change them in place.
        passed.extend(each.clone() for each in (*args, output))

    hooks = (
        model.base_model.register_forward_hook(of_base),
        head.register_forward_hook(of_head),
    )
    ids = torch.arange(_PROBE_LENGTH, device=model.device)[None]
    try:
        logits: Tensor = model(input_ids=ids, use_cache=False).logits
    finally:
        for hook in hooks:
            hook.remove()
    if len(passed) != 3:
        return False
    given, taken, made = passed
    return torch.equal(given, taken) and torch.equal(made.float(), logits.float())


def _head(model: PreTrainedModel) -> nn.Module | None:
    head: nn.Module | None = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return head
