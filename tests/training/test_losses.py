from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.training.reference import padded_losses
from training import losses as losses_module
from training.attention import ATTENTION
from training.bare_head import look_at_head
from training.base import load_base
from training.encoding import Encoded
from training.losses import head_losses, token_losses
from training.packable import enable_packing
from training.packing import collate

CPU = torch.device("cpu")


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("by_head", [True, False])
def test_losses_are_those_of_a_padded_batch_with_full_logits(
    tiny_base: str, encoded: tuple[Encoded, ...], by_head: bool, packed: bool
) -> None:
    plain, model = load_base(tiny_base), load_base(tiny_base)
    if by_head:
        look_at_head(model)
    if packed:
        model.set_attn_implementation(ATTENTION)
    with torch.no_grad():
        got = token_losses(model, collate(encoded, device=CPU))
        expected = torch.cat(padded_losses(plain, encoded))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_head_sees_the_learned_positions_alone_and_few_at_a_time(
    tiny_base: str, encoded: tuple[Encoded, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_base(tiny_base)
    assert enable_packing(model)
    vocabulary = model.config.vocab_size
    monkeypatch.setitem(losses_module.CHUNK_ELEMENTS, "cpu", 7 * vocabulary)
    seen: list[int] = []
    linear = functional.linear

    def watched(
        x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        if len(weight) == vocabulary:
            seen.append(len(x))
        return linear(x, weight, bias)

    monkeypatch.setattr(functional, "linear", watched)
    with torch.no_grad():
        token_losses(model, collate(encoded, device=CPU))
    assert sum(seen) == sum(example.num_learned for example in encoded)
    assert max(seen) == 7


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("trained", [True, False])
def test_chunked_head_has_the_gradient_of_plain_cross_entropy(
    bias: bool, trained: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(losses_module.CHUNK_ELEMENTS, "cpu", 33)
    monkeypatch.setattr(losses_module, "NARROWEST", 2)
    torch.manual_seed(0)
    head = nn.Linear(5, 11, bias=bias).requires_grad_(trained)
    labels, upstream = torch.randint(0, 11, (10,)), torch.randn(10)
    hidden = torch.randn(10, 5, requires_grad=True)
    found = []
    for losses in (
        head_losses(head, hidden, labels),
        functional.cross_entropy(head(hidden), labels, reduction="none"),
    ):
        wanted: Sequence[torch.Tensor] = [hidden, *(head.parameters() if trained else ())]
        found.append([losses, *torch.autograd.grad(losses, wanted, upstream)])
    for got, expected in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 200.0])
def test_head_is_right_where_its_logits_are_far_apart(
    scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels of all ranks, from what the head is sure of to what it would never say."""
    monkeypatch.setattr(losses_module, "NARROWEST", 2)
    monkeypatch.setitem(losses_module.CHUNK_ELEMENTS, "cpu", 1)
    torch.manual_seed(0)
    head = nn.Linear(4, 9).requires_grad_(False)
    hidden = (torch.randn(1, 4) * scale).repeat(9, 1).requires_grad_()
    labels = torch.arange(9)
    losses = head_losses(head, hidden, labels)
    expected = functional.cross_entropy(head(hidden).double(), labels, reduction="none")
    assert float(losses.detach().min()) >= 0
    torch.testing.assert_close(losses, expected.float())
    torch.testing.assert_close(
        *(torch.autograd.grad(each.sum(), hidden)[0] for each in (losses, expected))
    )


def test_labels_are_the_tokens_after_the_positions(encoded: tuple[Encoded, ...]) -> None:
    pack = collate(encoded, device=CPU)
    assert torch.equal(pack.input_ids[0, pack.positions + 1], pack.labels)
    assert pack.num_sequences == len(encoded)
    counts = torch.bincount(pack.owners).tolist()
    assert counts == [example.num_learned for example in encoded]
