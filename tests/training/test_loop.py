from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from subprocess import run

import pytest
import torch
from peft import PeftModel
from torch import nn

from training.base import load_base
from training.checkpoint import load_checkpoint, save_checkpoint
from training.encoding import Encoded
from training.errors import CheckpointError, DivergedError
from training.loop import (
    StepReport,
    TrainingLoop,
    mean_loss,
)
from training.lora import new_adapter
from training.objectives import Objective, Whole
from training.packable import enable_packing, recompute_activations
from training.parallel import Alone, Collective
from training.schedule import LoopSettings, ObjectiveSettings, learning_rate_at
from training.thin_lora import make_thin
from training.thin_norm import make_norms_thin

SETTINGS = LoopSettings(
    num_steps=6,
    global_batch=6,
    tokens_per_pass=128,
    learning_rate=1e-2,
    warmup_steps=2,
    schedule="linear",
    weight_decay=0.0,
    max_grad_norm=1.0,
    balance_by_tool=True,
    seed=3,
)


def sft(kind: type[Objective] = Objective) -> Objective:
    """A fresh objective: the mean over accepted answers."""
    return kind(ObjectiveSettings(), device=torch.device("cpu"), tokens_per_pass=128)


class Growing(Objective):
    """A loss that is larger every time it is asked for."""

    calls = 0

    def loss(self, model: nn.Module, part: Sequence[Encoded], whole: Whole) -> torch.Tensor:
        self.calls += 1
        return super().loss(model, part, whole) * self.calls


def _model(base: str, dropout: float = 0.0) -> PeftModel:
    plain = load_base(base)
    assert enable_packing(plain)
    model = new_adapter(
        plain, rank=4, alpha=8, dropout=dropout, target_modules="all-linear", seed=0
    )
    make_thin(model)
    make_norms_thin(model)
    return model


def _loop(
    model: nn.Module,
    dataset: Sequence[Encoded],
    settings: LoopSettings = SETTINGS,
    collective: Collective | None = None,
) -> TrainingLoop:
    return TrainingLoop(
        model=model,
        dataset=dataset,
        settings=settings,
        collective=collective or Alone(),
        objective=sft(),
    )


def _ignore(_: StepReport) -> None:
    return None


def _weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])


def test_loss_falls_and_every_step_is_reported(
    tiny_base: str, encoded: tuple[Encoded, ...]
) -> None:
    settings = replace(SETTINGS, num_steps=30, learning_rate=5e-2)
    loop = _loop(_model(tiny_base), encoded, settings)
    before = mean_loss(loop.model, encoded, collective=Alone(), objective=sft())
    reports: list[StepReport] = []
    loop.run(reports.append)
    after = mean_loss(loop.model, encoded, collective=Alone(), objective=sft())
    assert after < 0.8 * before
    assert [report.step for report in reports] == list(range(1, 31))
    assert loop.losses == [report.loss for report in reports]
    assert loop.num_tokens == sum(report.num_tokens for report in reports)


@pytest.mark.parametrize("tokens_per_pass", [1, 200, 4096])
def test_passes_of_any_size_give_the_same_losses(
    tiny_base: str, encoded: tuple[Encoded, ...], tokens_per_pass: int
) -> None:
    losses = []
    for size in (128, tokens_per_pass):
        loop = _loop(_model(tiny_base), encoded, replace(SETTINGS, tokens_per_pass=size))
        loop.run(_ignore)
        losses.append(loop.losses)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_padding_counts_among_the_tokens_of_a_pass(
    tiny_base: str, encoded: tuple[Encoded, ...]
) -> None:
    model = load_base(tiny_base)
    shapes: list[torch.Size] = []
    model.base_model.register_forward_pre_hook(
        lambda _module, _args, inputs: shapes.append(inputs["input_ids"].shape), with_kwargs=True
    )
    adapted = new_adapter(model, rank=4, alpha=8, dropout=0, target_modules="all-linear", seed=0)
    _loop(adapted, encoded).run(_ignore)
    mean_loss(adapted, encoded, collective=Alone(), objective=sft())
    assert max(rows for rows, _ in shapes) > 1
    assert max(rows * width for rows, width in shapes) <= SETTINGS.tokens_per_pass


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_resume_continues_the_loss_curve_exactly(
    tiny_base: str, encoded: tuple[Encoded, ...], tmp_path: Path, dropout: float
) -> None:
    whole = _loop(_model(tiny_base, dropout), encoded)
    folder = tmp_path / "checkpoint"

    def save_half_way(report: StepReport) -> None:
        if report.step == 3:
            assert isinstance(whole.model, PeftModel)
            save_checkpoint(
                folder, model=whole.model, state=whole.state_dict(), base_id="b", run_digest="r"
            )

    whole.run(save_half_way)
    model = _model(tiny_base, dropout)
    resumed = _loop(model, encoded)
    resumed.load_state_dict(load_checkpoint(folder, model=model, run_digest="r"))
    assert resumed.step == 3
    resumed.run(_ignore)
    assert resumed.losses == whole.losses
    assert torch.equal(_weights(resumed.model), _weights(whole.model))
    assert resumed.num_tokens == whole.num_tokens


def test_checkpoints_are_whole_and_belong_to_their_run(
    tiny_base: str, encoded: tuple[Encoded, ...], tmp_path: Path
) -> None:
    model = _model(tiny_base)
    state = _loop(model, encoded).state_dict()
    folder = tmp_path / "checkpoint"
    for _ in range(2):
        save_checkpoint(folder, model=model, state=state, base_id="b", run_digest="r")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
    with pytest.raises(CheckpointError, match="belongs to another run"):
        load_checkpoint(folder, model=model, run_digest="other")
    (folder / "loop.pt").write_bytes((folder / "loop.pt").read_bytes()[:100])
    with pytest.raises(CheckpointError, match="is damaged"):
        load_checkpoint(folder, model=model, run_digest="r")


def test_two_and_three_workers_agree_with_a_single_one(
    tiny_base: str, encoded: tuple[Encoded, ...], tmp_path: Path
) -> None:
    _compare_with_one(tiny_base, encoded, tmp_path, "2", "3")


@pytest.mark.slow
def test_workers_that_share_a_base_agree_with_one_that_has_all_of_it(
    tiny_base: str, encoded: tuple[Encoded, ...], tmp_path: Path
) -> None:
    _compare_with_one(tiny_base, encoded, tmp_path, "sharded", "2")


def _compare_with_one(
    base: str, dataset: tuple[Encoded, ...], folder: Path, *arguments: str
) -> None:
    alone = _loop(_model(base), dataset)
    alone.run(_ignore)
    torch.save((base, dataset), folder / "input.pt")
    script = Path(__file__).with_name("run_workers.py")
    command = [sys.executable, str(script), str(folder), *arguments]
    done = run(command, check=False, capture_output=True, text=True, cwd=Path.cwd())
    assert done.returncode == 0, done.stderr
    results = list(folder.glob("result-*.pt"))
    assert len(results) == sum(int(word) for word in arguments if word.isdigit())
    for path in results:
        losses, weights = torch.load(path)
        assert losses == pytest.approx(alone.losses, rel=1e-5)
        expected = _weights(alone.model)
        assert (weights - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's own
def test_recomputing_activations_changes_no_loss(
    tiny_base: str, encoded: tuple[Encoded, ...]
) -> None:
    kept, recomputed = _loop(_model(tiny_base), encoded), _loop(_model(tiny_base), encoded)
    recompute_activations(recomputed.model)
    calls: list[int] = []
    layer = recomputed.model.get_submodule("base_model.model.model.layers.0.mlp")
    layer.register_forward_hook(lambda *_: calls.append(1))
    for loop in (kept, recomputed):
        loop.run(_ignore)
    assert recomputed.losses == kept.losses
    assert torch.equal(_weights(kept.model), _weights(recomputed.model))
    assert len(calls) % 2 == 0


def test_a_single_example_is_enough_to_learn_from(
    tiny_base: str, encoded: tuple[Encoded, ...]
) -> None:
    loop = _loop(_model(tiny_base), encoded[:1], replace(SETTINGS, learning_rate=5e-2))
    loop.run(_ignore)
    assert loop.losses[-1] < loop.losses[0]


def test_a_loss_that_is_not_a_number_stops_the_run(
    tiny_base: str, encoded: tuple[Encoded, ...]
) -> None:
    model = _model(tiny_base)
    with torch.no_grad():
        next(p for p in model.parameters() if p.requires_grad).fill_(float("nan"))
    loop = _loop(model, encoded)
    with pytest.raises(DivergedError, match="Step 1: the loss is nan"):
        loop.run(_ignore)


def test_a_growing_loss_stops_the_run(tiny_base: str, encoded: tuple[Encoded, ...]) -> None:
    loop = TrainingLoop(
        model=_model(tiny_base),
        dataset=encoded,
        settings=replace(SETTINGS, num_steps=200, learning_rate=1e-6),
        collective=Alone(),
        objective=sft(Growing),
    )
    with pytest.raises(DivergedError, match=r"Step 1\d: the loss grew from"):
        loop.run(_ignore)


@pytest.mark.parametrize(
    ("schedule", "last"), [("constant", 1e-2), ("linear", 2.5e-3), ("cosine", 1.4645e-3)]
)
def test_learning_rate_rises_then_follows_its_schedule(schedule: str, last: float) -> None:
    settings = replace(SETTINGS, schedule=schedule)
    rates = [learning_rate_at(step, settings) for step in range(settings.num_steps)]
    assert rates[:3] == pytest.approx([5e-3, 1e-2, 1e-2])
    assert rates[-1] == pytest.approx(last, rel=1e-3)
