from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from training.base import load_base
from training.encoding import Encoded, Example, encode_all
from training.errors import DataError
from training.lora import new_adapter
from training.objectives import Objective, Whole
from training.packable import enable_packing
from training.packing import bins, deal
from training.schedule import ObjectiveName, ObjectiveSettings

CPU = torch.device("cpu")
NAMES: list[ObjectiveName] = ["sft", "dpo", "kto", "mixed"]


@pytest.fixture(scope="module")
def preferences(tokenizer: PreTrainedTokenizerBase) -> tuple[Encoded, ...]:
    """Three pairs, two accepted answers, and three thumbs."""

    def example(number: int, **extra: Any) -> Example:
        return Example(
            id=f"e{number}",
            messages=(
                {"role": "user", "content": f"Write {'very ' * (number % 3)}{number}"},
                {"role": "assistant", "content": "Role: " + "ab" * number},
            ),
            weight=2.0 if number == 1 else 1.0,
            **extra,
        )

    examples = [
        *(example(number, rejected="no" * (number + 1)) for number in range(3)),
        *(example(number) for number in range(3, 5)),
        *(example(number, label=number % 2 == 0) for number in range(5, 8)),
    ]
    return encode_all(examples, tokenizer, max_tokens=128).examples


@pytest.mark.parametrize("name", NAMES)
def test_passes_and_workers_change_neither_loss_nor_gradient(
    tiny_base: str, preferences: tuple[Encoded, ...], name: ObjectiveName
) -> None:
    found = [
        _loss_and_gradient(tiny_base, preferences, name, num_workers=workers, budget=budget)
        for workers, budget in [(1, 4096), (1, 60), (2, 150), (3, 90)]
    ]
    for loss, gradient in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-5)
        assert float((gradient - found[0][1]).norm()) <= 1e-5 * float(found[0][1].norm())


def test_before_the_first_step_preferences_are_undecided(
    tiny_base: str, preferences: tuple[Encoded, ...]
) -> None:
    dpo, _ = _loss_and_gradient(tiny_base, preferences, "dpo", moved=False)
    kto, _ = _loss_and_gradient(tiny_base, preferences, "kto", moved=False)
    assert dpo == pytest.approx(np.log(2), rel=1e-4)
    assert kto == pytest.approx(0.5, rel=1e-4)


def test_mixed_is_sft_plus_its_weight_of_dpo(
    tiny_base: str, preferences: tuple[Encoded, ...]
) -> None:
    sft, _ = _loss_and_gradient(tiny_base, preferences, "sft")
    dpo, _ = _loss_and_gradient(tiny_base, preferences, "dpo")
    mixed, _ = _loss_and_gradient(tiny_base, preferences, "mixed", preference_weight=0.25)
    assert mixed == pytest.approx(sft + 0.25 * dpo, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "num_examples"), [("sft", 6), ("dpo", 3), ("kto", 11), ("mixed", 6)]
)
def test_each_objective_takes_what_it_has_a_use_for(
    tiny_base: str, preferences: tuple[Encoded, ...], name: ObjectiveName, num_examples: int
) -> None:
    objective = _objective(name, budget=512)
    assert len(objective.prepare(_adapted(tiny_base), preferences)) == num_examples


@pytest.mark.parametrize(("name", "what"), [("dpo", "pairs of"), ("sft", "accepted answers")])
def test_nothing_of_its_kind_is_told(
    tiny_base: str, preferences: tuple[Encoded, ...], name: ObjectiveName, what: str
) -> None:
    disliked = [replace(preferences[5], label=False, rejected=None)]
    with pytest.raises(DataError, match=f"'{name}' learns from {what}.*none of the 1 examples"):
        _objective(name, budget=512).prepare(_adapted(tiny_base), disliked)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # TRL's and accelerate's own
@pytest.mark.parametrize("name", ["dpo", "kto"])
def test_losses_are_those_of_trl_on_the_same_batch(
    tiny_base: str, tmp_path: Path, name: ObjectiveName
) -> None:
    trainer = _trl_trainer(name, tiny_base, tmp_path)
    _move(trainer.model)
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.eval()
    expected = float(trainer.compute_loss(trainer.model, batch))
    examples = _of_trl(name, batch)
    got, _ = _loss_and_gradient(tiny_base, examples, name)
    assert got == pytest.approx(expected, abs=1e-4)


def _trl_trainer(name: ObjectiveName, base: str, folder: Path) -> Any:
    import trl
    from datasets import Dataset

    from training.base import load_tokenizer

    prompts = [f"Ask {'very ' * number}much" for number in range(4)]
    rows: dict[str, list[Any]] = {"prompt": prompts}
    if name == "dpo":
        rows |= {"chosen": [p.upper() for p in prompts], "rejected": [p[::-1] for p in prompts]}
    else:
        rows |= {"completion": [p.upper() for p in prompts], "label": [True, False, True, False]}
    config = {"dpo": trl.DPOConfig, "kto": trl.KTOConfig}[name](
        output_dir=str(folder),
        per_device_train_batch_size=4,
        beta=0.1,
        max_length=None,
        use_cpu=True,
        bf16=False,
        report_to=[],
        gradient_checkpointing=False,
        train_sampling_strategy="sequential",
    )
    kind = {"dpo": trl.DPOTrainer, "kto": trl.KTOTrainer}[name]
    return kind(
        model=_adapted(base, packs=False),
        args=config,
        train_dataset=Dataset.from_dict(rows),
        processing_class=load_tokenizer(base),
    )


def _of_trl(name: ObjectiveName, batch: dict[str, torch.Tensor]) -> list[Encoded]:
    """TRL's batch in our form: chosen answers are its first half, rejected ones its second."""
    rows = [
        Encoded(input_ids=ids[mask.bool()].numpy().astype(np.int32), num_learned=int(learned.sum()))
        for ids, mask, learned in zip(
            batch["input_ids"], batch["attention_mask"], batch["completion_mask"], strict=True
        )
    ]
    if name == "dpo":
        half = len(rows) // 2
        return [
            replace(chosen, rejected=rejected)
            for chosen, rejected in zip(rows[:half], rows[half:], strict=True)
        ]
    return [
        replace(row, label=bool(label)) for row, label in zip(rows, batch["label"], strict=True)
    ]


def _adapted(base: str, *, packs: bool = True) -> PeftModel:
    plain = load_base(base)
    assert not packs or enable_packing(plain)
    return new_adapter(
        plain, rank=3, alpha=6, dropout=0.0, target_modules="all-linear", seed=0
    ).train()


def _move(model: torch.nn.Module) -> None:
    """Takes the adapter away from where the run found it."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B.default" in name:
                parameter.normal_(std=0.1)


def _objective(name: ObjectiveName, *, budget: int, weight: float = 1.0) -> Objective:
    settings = ObjectiveSettings(name=name, beta=0.1, preference_weight=weight)
    return Objective(settings, device=CPU, tokens_per_pass=budget)


def _loss_and_gradient(
    base: str,
    examples: Sequence[Encoded],
    name: ObjectiveName,
    *,
    num_workers: int = 1,
    budget: int = 4096,
    moved: bool = True,
    preference_weight: float = 1.0,
) -> tuple[float, torch.Tensor]:
    """Of one global batch, worker by worker in this process."""
    model = _adapted(base)
    objective = _objective(name, budget=budget, weight=preference_weight)
    batch = objective.prepare(model, examples)
    if moved:
        _move(model)
    hands = deal([example.num_tokens for example in batch], num_workers)
    sums: list[torch.Tensor] = []
    for hand in hands:
        objective.whole(model, batch, hand, lambda total: sums.append(total.clone()))

    def put_sum(total: torch.Tensor) -> None:
        total.copy_(sum(sums, torch.zeros(1)))

    losses = 0.0
    for hand in hands:
        whole: Whole = objective.whole(model, batch, hand, put_sum)
        for chosen in bins([batch[index].num_tokens for index in hand], budget):
            loss = objective.loss(model, [batch[hand[place]] for place in chosen], whole)
            loss.backward()  # type: ignore[no-untyped-call]
            losses += float(loss.detach())
    gradient = torch.cat(
        [p.grad.flatten() for p in model.parameters() if p.requires_grad and p.grad is not None]
    )
    return losses, gradient
