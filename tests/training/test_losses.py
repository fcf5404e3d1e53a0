from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch.nn import functional

from training.base import load_base
from training.encoding import Encoded
from training.losses import Batch, collate, completion_logits, completion_loss_sum

CPU = torch.device("cpu")


def _reference_sum(model: torch.nn.Module, examples: Sequence[Encoded]) -> torch.Tensor:
    """The same sum, one example at a time, from full logits."""
    total = torch.zeros(())
    for example in examples:
        ids = torch.tensor(example.input_ids.tolist())[None]
        logits = model(input_ids=ids).logits[0, :-1]
        losses = functional.cross_entropy(logits, ids[0, 1:], reduction="none")
        total = total + example.weight * losses[-example.num_learned :].sum()
    return total


@pytest.mark.parametrize("softcap", [None, 30.0])
def test_padded_batch_equals_one_example_at_a_time(
    tiny_base: str, encoded: tuple[Encoded, ...], softcap: float | None
) -> None:
    model = load_base(tiny_base)
    model.config.final_logit_softcapping = softcap
    batch = collate(encoded, pad_id=0, device=CPU)
    with torch.no_grad():
        got, expected = completion_loss_sum(model, batch), _reference_sum(model, encoded)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=0)


def test_head_sees_only_the_learned_positions(tiny_base: str, encoded: tuple[Encoded, ...]) -> None:
    model = load_base(tiny_base)
    seen: list[int] = []
    head = model.get_output_embeddings()
    head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[0]))
    batch = collate(encoded, pad_id=0, device=CPU)
    with torch.no_grad():
        logits = completion_logits(model, batch)
    num_learned = sum(example.num_learned for example in encoded)
    assert seen == [num_learned]
    assert logits.shape == (num_learned, model.config.vocab_size)


def test_labels_are_the_tokens_after_the_positions(encoded: tuple[Encoded, ...]) -> None:
    batch: Batch = collate(encoded, pad_id=0, device=CPU)
    following = batch.input_ids.flatten()[batch.positions + 1]
    assert torch.equal(following, batch.labels)
