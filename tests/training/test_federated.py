"""Averages of adapters: exact sums, honest compression, clipped and noised steps, the budget."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.base import load_base
from training.errors import AdapterError
from training.federated.averaging import Averaging, Contribution, average
from training.federated.privacy import delta_of, epsilon_of
from training.federated.updates import (
    LowRank,
    Update,
    norm,
    read_update,
    recompressed,
    weighted_sum,
    write_update,
)
from training.lora import attach_adapter, new_adapter, write_adapter

SHAPES = {"first": (7, 5), "second": (4, 9)}


def update(seed: int, *, rank: int = 2) -> Update:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: LowRank(
            torch.randn(rows, rank, dtype=torch.float64, generator=generator),
            torch.randn(rank, columns, dtype=torch.float64, generator=generator),
        )
        for name, (rows, columns) in SHAPES.items()
    }


def dense(found: Update) -> dict[str, torch.Tensor]:
    return {name: layer.b @ layer.a for name, layer in found.items()}


def assert_same(found: Update, expected: dict[str, torch.Tensor]) -> None:
    for name, matrix in dense(found).items():
        torch.testing.assert_close(matrix, expected[name], rtol=1e-9, atol=1e-9)


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=4))
def test_the_average_is_that_of_the_products_weighted_by_counts(counts: list[int]) -> None:
    sites = [
        Contribution(update=update(number), num_samples=count)
        for number, count in enumerate(counts)
    ]
    found = average(None, sites, Averaging())
    expected = {
        name: sum(
            (dense(site.update)[name] * site.num_samples / sum(counts) for site in sites),
            torch.zeros(shape, dtype=torch.float64),
        )
        for name, shape in SHAPES.items()
    }
    assert_same(found.update, expected)
    assert found.lost == pytest.approx(0, abs=1e-12)


def test_a_lower_rank_is_the_nearest_one_and_tells_what_it_lost() -> None:
    whole = weighted_sum([update(1), update(2)], [0.5, 0.5])
    found, lost = recompressed(whole, max_rank=3)
    assert {layer.rank for layer in found.values()} == {3}
    missed = total = 0.0
    for name, matrix in dense(whole).items():
        u, s, vt = torch.linalg.svd(matrix)
        torch.testing.assert_close(
            found[name].b @ found[name].a, u[:, :3] @ torch.diag(s[:3]) @ vt[:3]
        )
        missed += float((s[3:] ** 2).sum())
        total += float((s**2).sum())
    assert lost == pytest.approx(missed / total)
    everything, nothing = recompressed(whole, max_rank=None)
    assert_same(everything, dense(whole))
    assert nothing == pytest.approx(0, abs=1e-12)
    # Directions that hold nothing go: twice the same is no more than once.
    twice, _ = recompressed(weighted_sum([update(1), update(1)], [1, 1]), max_rank=None)
    assert {layer.rank for layer in twice.values()} == {2}


def test_a_step_that_is_too_long_is_shortened_and_nothing_else() -> None:
    before = update(0)
    near = weighted_sum([before, update(1)], [1.0, 0.01])
    far = weighted_sum([before, update(2)], [1.0, 10.0])
    limit = 2 * norm(weighted_sum([near, before], [1, -1]))
    sites = [Contribution(update=near, num_samples=1), Contribution(update=far, num_samples=3)]
    found = average(before, sites, Averaging(clip_norm=limit))
    assert found.num_clipped == 1
    scale = limit / norm(weighted_sum([far, before], [1, -1]))
    expected = {
        name: dense(before)[name]
        + (dense(near)[name] - dense(before)[name]) / 4
        + (dense(far)[name] - dense(before)[name]) * scale * 3 / 4
        for name in SHAPES
    }
    assert_same(found.update, expected)


def test_noise_is_of_the_size_that_the_budget_assumes() -> None:
    sites = [Contribution(update=update(1), num_samples=1)] * 2
    settings = Averaging(clip_norm=3.0, noise_multiplier=2.0, max_rank=9)
    plain = average(None, sites, Averaging(clip_norm=3.0))
    chance = random.Random(0)
    noise = []
    for _ in range(400):
        noisy = dense(average(None, sites, settings, randomness=chance.randbytes).update)
        noise += [noisy[name] - matrix for name, matrix in dense(plain.update).items()]
    found = torch.cat([part.flatten() for part in noise])
    # On the mean of two: 2.0 · 3.0 / 2.
    assert float(found.std()) == pytest.approx(3.0, rel=0.02)
    assert float(found.mean()) == pytest.approx(0.0, abs=0.1)
    # Normal, not only of that width: 4.55 % lie beyond two deviations.
    assert float((found.abs() > 6).double().mean()) == pytest.approx(0.0455, abs=0.005)


def test_noise_cannot_be_made_again_from_what_anybody_knows() -> None:
    sites = [Contribution(update=update(1), num_samples=1)] * 2
    settings = Averaging(clip_norm=3.0, noise_multiplier=2.0, max_rank=9)
    first, second = (dense(average(None, sites, settings).update) for _ in range(2))
    assert all(not torch.allclose(first[name], second[name]) for name in SHAPES)


def test_the_rarest_random_bits_are_noise_too() -> None:
    sites = [Contribution(update=update(1), num_samples=1)]
    settings = Averaging(clip_norm=3.0, noise_multiplier=2.0, max_rank=9)
    for byte in (b"\x00", b"\xff"):
        found = average(None, sites, settings, randomness=lambda num, byte=byte: byte * num)
        assert all(torch.isfinite(matrix).all() for matrix in dense(found.update).values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise_multiplier": 1.0}, "needs clip_norm"),
        ({"noise_multiplier": 1.0, "clip_norm": 1.0}, "needs max_rank"),
        ({"noise_multiplier": -1.0}, "must not be below 0"),
        ({"clip_norm": 0.0}, "clip_norm must be above 0"),
        ({"delta": 1.0}, "delta must lie between"),
    ],
)
def test_settings_that_promise_nothing_are_refused(
    settings: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Averaging(**settings)  # type: ignore[arg-type]


def test_epsilon_is_the_exact_one_of_the_gaussian_mechanism() -> None:
    # μ = 1: Φ(-0.5) and so on, from tables of the normal distribution.
    assert delta_of(1.0, noise_multiplier=1.0, num_rounds=1) == pytest.approx(0.12693674, rel=1e-6)
    # T rounds are one of noise z / √T.
    assert delta_of(1.0, noise_multiplier=3.0, num_rounds=9) == pytest.approx(0.12693674, rel=1e-6)
    assert epsilon_of(noise_multiplier=1.0, num_rounds=1, delta=0.12693674) == pytest.approx(
        1.0, rel=1e-5
    )
    assert math.isinf(epsilon_of(noise_multiplier=0.0, num_rounds=1, delta=1e-5))
    assert epsilon_of(noise_multiplier=1e9, num_rounds=1, delta=1e-5) == 0.0


@given(st.floats(0.5, 20), st.integers(1, 50), st.floats(1e-8, 1e-2))
def test_epsilon_never_exceeds_what_renyi_accounting_gives(
    noise: float, rounds: int, delta: float
) -> None:
    exact = epsilon_of(noise_multiplier=noise, num_rounds=rounds, delta=delta)
    # Canonne, Kamath & Steinke 2020 (arXiv:2004.00010), proposition 12, over orders α.
    orders = [1 + 10 ** (power / 10) for power in range(-20, 40)]
    renyi = min(
        a * rounds / (2 * noise**2) + math.log1p(-1 / a) - math.log(delta * a) / (a - 1)
        for a in orders
    )
    assert exact <= renyi + 1e-6


def test_an_average_is_an_adapter_that_peft_loads(tiny_base: str, tmp_path: Path) -> None:
    for seed in (1, 2):
        model = new_adapter(
            load_base(tiny_base), rank=2, alpha=6, dropout=0, target_modules="all-linear", seed=seed
        )
        for parameter in model.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.1)
        write_adapter(model, tmp_path / str(seed), base_id=tiny_base)
    updates = [read_update(tmp_path / str(seed)) for seed in (1, 2)]
    summed = weighted_sum(updates, [0.25, 0.75])
    write_update(summed, tmp_path / "average", like=tmp_path / "1")
    ids = torch.arange(10, 20)[None]

    def merged(adapter: Path) -> dict[str, torch.Tensor]:
        model = attach_adapter(load_base(tiny_base), adapter, trainable=False)
        plain = model.merge_and_unload()
        return {"logits": plain(ids).logits, **dict(plain.state_dict())}

    base = dict(load_base(tiny_base).state_dict())
    one, two, both = (merged(tmp_path / name) for name in ("1", "2", "average"))
    for name, weight in base.items():
        expected = 0.25 * one[name] + 0.75 * two[name]
        torch.testing.assert_close(both[name], expected, rtol=1e-4, atol=1e-5)
        assert weight.shape == expected.shape


def test_what_is_no_plain_lora_is_refused(tiny_base: str, tmp_path: Path) -> None:
    model = new_adapter(
        load_base(tiny_base), rank=2, alpha=4, dropout=0, target_modules=["q_proj"], seed=1
    )
    write_adapter(model, tmp_path / "a", base_id=tiny_base)
    config = tmp_path / "a" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"use_rslora": True}))
    with pytest.raises(AdapterError, match="only plain LoRA"):
        read_update(tmp_path / "a")
    with pytest.raises(AdapterError, match="different layers"):
        weighted_sum([update(1), {"first": update(2)["first"]}], [1, 1])
