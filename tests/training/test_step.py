"""The step against its definition: packs, passes, workers and targets change no gradient."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.training.reference import gradients, mean_loss
from training.bare_head import look_at_head
from training.base import load_base
from training.encoding import Encoded
from training.lora import new_adapter
from training.objectives import Objective, Whole
from training.packable import enable_packing
from training.packing import bins, deal
from training.schedule import ObjectiveSettings
from training.thin_lora import make_thin
from training.thin_norm import make_norms_thin

CPU = torch.device("cpu")
TARGETS = (
    ["all-linear"],
    ["q_proj", "v_proj"],
    ["down_proj"],
    ["lm_head", "k_proj"],
    ["embed_tokens", "o_proj"],
)


@st.composite
def sequences(draw: st.DrawFn) -> list[Encoded]:
    """One to eight sequences, some learned whole but for their first token."""
    found = []
    for _ in range(draw(st.integers(1, 8))):
        length = draw(st.integers(2, 40))
        seed = draw(st.integers(0, 2**16))
        found.append(
            Encoded(
                input_ids=np.random.default_rng(seed).integers(0, 250, length).astype(np.int32),
                num_learned=draw(st.integers(1, length - 1)),
                weight=draw(st.sampled_from([1.0, 0.5, 3.0])),
            )
        )
    return found


# The tiny base ties its embeddings, as many small models do.
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    examples=sequences(),
    tokens_per_pass=st.integers(1, 200),
    num_workers=st.integers(1, 3),
    targets=st.sampled_from(TARGETS),
    padded=st.booleans(),
)
def test_loss_and_gradients_are_those_of_the_padded_batch_with_full_logits(
    tiny_base: str,
    examples: list[Encoded],
    tokens_per_pass: int,
    num_workers: int,
    targets: Sequence[str],
    padded: bool,
) -> None:
    expected = _adapted(tiny_base, targets)
    loss = mean_loss(expected, examples)
    loss.backward()  # type: ignore[no-untyped-call]
    model = _adapted(tiny_base, targets, packed=not padded)
    got = _step(model, examples, tokens_per_pass=tokens_per_pass, num_workers=num_workers)
    assert float(got) == pytest.approx(float(loss.detach()), rel=1e-5)
    wanted = gradients(expected)
    assert float((gradients(model) - wanted).norm()) <= 1e-5 * float(wanted.norm())


def test_dropout_has_the_gradient_of_what_it_dropped(tiny_base: str) -> None:
    layer = new_adapter(
        load_base(tiny_base), rank=4, alpha=8, dropout=0.5, target_modules=["q_proj"], seed=0
    )
    assert make_thin(layer) == 2
    linear = next(m for m in layer.modules() if hasattr(m, "lora_A")).train()
    with torch.no_grad():
        linear.lora_B["default"].weight.normal_()
    x = torch.randn(3, 32, dtype=torch.float64, requires_grad=True)
    linear.double()

    def drawn_alike(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        del a, b  # gradcheck moves the parameters in place
        torch.manual_seed(1)
        out: Tensor = linear(x)
        return out

    weights = (linear.lora_A["default"].weight, linear.lora_B["default"].weight)
    assert torch.autograd.gradcheck(drawn_alike, (x, *weights))
    kept = linear(x.detach())
    assert not torch.equal(kept, linear(x.detach()))
    linear.eval()
    assert torch.equal(linear(x.detach()), linear(x.detach()))


def _adapted(base: str, targets: Sequence[str], *, packed: bool | None = None) -> torch.nn.Module:
    plain = load_base(base)
    if packed is not None:
        look_at_head(plain)
    if packed:
        assert enable_packing(plain)
    model = new_adapter(
        plain,
        rank=3,
        alpha=6,
        dropout=0.0,
        target_modules=targets[0] if targets == ["all-linear"] else targets,
        seed=0,
    )
    if packed is not None:
        make_thin(model)
        make_norms_thin(model)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "lora_embedding_A" in name:
                parameter.normal_(std=0.3)
    return model.train()


def _step(
    model: torch.nn.Module, examples: Sequence[Encoded], *, tokens_per_pass: int, num_workers: int
) -> Tensor:
    """The sum over workers and passes, one after the other."""
    objective = Objective(ObjectiveSettings(), device=CPU, tokens_per_pass=tokens_per_pass)
    prepared = objective.prepare(model, examples)
    whole = Whole.of(prepared)
    total = torch.zeros(())
    for hand in deal([example.num_tokens for example in prepared], num_workers):
        sizes = [prepared[index].num_tokens for index in hand]
        for chosen in bins(sizes, tokens_per_pass):
            loss = objective.loss(model, [prepared[hand[place]] for place in chosen], whole)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
    return total
