from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from tests.support.ray_cluster import RAY_WARNINGS, train_workers
from tests.training import test_loop
from training import launch
from training.base import load_base, load_tokenizer
from training.config import RECIPES, Recipe, load_recipe
from training.encoding import Example, encode_all
from training.errors import (
    AdapterError,
    BaseModelError,
    CheckpointError,
    DataError,
    DivergedError,
    RunFailedError,
)
from training.evaluation.frozen import freeze, without_suites
from training.launch import TrainingOutcome, train
from training.loop import TrainingLoop
from training.lora import new_adapter, read_adapter_config, write_adapter
from training.parallel import Alone
from training.progress import Progress
from training.storage import open_storage

pytestmark = [pytest.mark.timeout(600), *RAY_WARNINGS]


@pytest.fixture(scope="module")
def train_file(examples: list[Example], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples as a file."""
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    rows = [
        {
            "id": example.id,
            "messages": example.messages,
            "target_tool": example.target_tool,
            "weight": example.weight,
        }
        for example in examples
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _recipe(tmp_path: Path, **changes: float) -> Recipe:
    """tiny_cpu with some of its values changed, and any others added to [workers]."""
    text = (RECIPES / "tiny_cpu.toml").read_text()
    for name, value in changes.items():
        text, num_found = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value}", text)
        if not num_found:
            text = text.replace("[workers]", f"[workers]\n{name} = {value}")
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return load_recipe(path)


def _train(
    recipe: Recipe,
    base: str,
    train_file: Path,
    folder: Path,
    on_progress: Callable[[Progress], None] | None = None,
    parent: Path | None = None,
    storage: str | None = None,
    validation: Path | None = None,
) -> TrainingOutcome:
    return train(
        run_id="run",
        train_file=train_file,
        validation_file=validation or train_file,
        recipe=recipe,
        base_model=base,
        parent_adapter=parent,
        output_dir=folder / "adapter",
        storage_path=storage or str(folder / "storage"),
        on_progress=on_progress,
    )


def _losses_without_ray(recipe: Recipe, base: str, examples: list[Example]) -> list[float]:
    lora = recipe.lora
    tokenizer = load_tokenizer(base)
    model = new_adapter(
        load_base(base),
        rank=lora.rank,
        alpha=lora.alpha,
        dropout=lora.dropout,
        target_modules=lora.target_modules,
        seed=recipe.seed,
    )
    dataset = encode_all(examples, tokenizer, max_tokens=recipe.data.max_tokens).examples
    loop = TrainingLoop(
        model=model,
        dataset=dataset,
        settings=recipe.loop_settings(len(dataset)),
        collective=Alone(),
        objective=test_loop.sft(),
    )
    loop.run(test_loop._ignore)
    return loop.losses


@pytest.mark.usefixtures("ray_cluster")
def test_two_ray_workers_train_as_one_process_does_and_tell_as_they_go(
    tiny_base: str,
    examples: list[Example],
    train_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = load_recipe("tiny_cpu")
    num_steps = recipe.num_steps(len(examples))
    heard: list[tuple[Progress, datetime]] = []
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGINT)
    outcome = _train(
        recipe, tiny_base, train_file, tmp_path, lambda p: heard.append((p, datetime.now(UTC)))
    )
    ended = datetime.now(UTC)
    assert outcome.losses == pytest.approx(
        _losses_without_ray(recipe, tiny_base, examples), rel=1e-4
    )
    assert [progress.step for progress, _ in heard] == list(range(1, num_steps + 1))
    assert [progress.loss for progress, _ in heard] == outcome.losses
    assert heard[0][1] < ended
    assert outcome.validation_loss is not None
    assert outcome.validation_loss < outcome.losses[0]
    assert (outcome.num_steps, outcome.num_failures, outcome.num_dropped) == (num_steps, 0, 0)
    config = read_adapter_config(outcome.adapter_dir)
    assert config["base_model_name_or_path"] == tiny_base
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_killed_worker_is_replaced_and_the_loss_curve_goes_on(
    tiny_base: str, examples: list[Example], train_file: Path, tmp_path: Path
) -> None:
    # So slow a rate that rounding, which differs between one and two workers, does not grow.
    recipe = _recipe(
        tmp_path,
        num_steps=150,
        min_steps=150,
        learning_rate=1e-4,
        checkpoint_every=10,
        max_failures=1,
    )
    killed: list[int] = []
    steps: list[int] = []

    def kill_once(progress: Progress) -> None:
        steps.append(progress.step)
        if progress.step >= 25 and not killed:
            killed.append(train_workers()[-1])
            os.kill(killed[0], signal.SIGKILL)

    outcome = _train(recipe, tiny_base, train_file, tmp_path, kill_once)
    assert len(killed) == 1
    assert outcome.num_failures == 1
    resumed_at = next(now for was, now in pairwise(steps) if now <= was)
    assert resumed_at > 10
    assert outcome.losses == pytest.approx(
        _losses_without_ray(recipe, tiny_base, examples), rel=1e-3
    )


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_run_that_is_launched_again_goes_on_wherever_its_checkpoints_are(
    tiny_base: str, examples: list[Example], train_file: Path, tmp_path: Path
) -> None:
    # pyarrow does not know this scheme: fsspec does, as it knows many others.
    storage = f"local://{tmp_path / 'storage'}"
    recipe = _recipe(
        tmp_path,
        num_workers=1,
        num_steps=150,
        min_steps=150,
        checkpoint_every=10,
        max_failures=0,
    )

    def kill(progress: Progress) -> None:
        if progress.step == 25:
            os.kill(train_workers()[-1], signal.SIGKILL)

    with pytest.raises(RunFailedError):
        _train(recipe, tiny_base, train_file, tmp_path, kill, storage=storage)
    steps: list[int] = []
    outcome = _train(
        recipe, tiny_base, train_file, tmp_path, lambda p: steps.append(p.step), storage=storage
    )
    assert steps[0] > 10
    assert (tmp_path / "storage" / "run").is_dir()
    assert outcome.losses == pytest.approx(
        _losses_without_ray(recipe, tiny_base, examples), rel=1e-4
    )


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_run_that_may_take_fewer_workers_goes_on_with_those_that_are_there(
    tiny_base: str, examples: list[Example], train_file: Path, tmp_path: Path
) -> None:
    # The cluster has two CPUs: room for one such worker beside Ray Train's controller.
    recipe = _recipe(tmp_path, num_workers=4, min_workers=1, cpus_per_worker=0.9)
    outcome = _train(recipe, tiny_base, train_file, tmp_path)
    assert outcome.losses == pytest.approx(
        _losses_without_ray(recipe, tiny_base, examples), rel=1e-4
    )


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_errors_that_would_come_again_are_raised_without_a_retry(
    tiny_base: str, train_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(BaseModelError, match="'no/such-model' cannot be loaded"):
        _train(load_recipe("tiny_cpu"), "no/such-model", train_file, tmp_path / "a")
    broken = _broken_adapter(tiny_base, tmp_path / "parent")
    with pytest.raises(DivergedError, match="Step 1: the loss is nan"):
        _train(load_recipe("tiny_cpu"), tiny_base, train_file, tmp_path / "b", parent=broken)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_what_ray_cannot_grant_ends_the_run(
    tiny_base: str, train_file: Path, tmp_path: Path
) -> None:
    recipe = _recipe(tmp_path, gpus_per_worker=1, start_timeout_s=1, max_failures=0)
    with pytest.raises(RunFailedError, match=r"Run run: .*asks for 2 GPUs and Ray has 0"):
        _train(recipe, tiny_base, train_file, tmp_path)


def test_validation_by_rejected_answers_alone_is_told_before_ray_is_asked(
    train_file: Path, tmp_path: Path
) -> None:
    disliked = tmp_path / "disliked.jsonl"
    rows = [json.loads(line) | {"label": False} for line in train_file.read_text().splitlines()]
    disliked.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="Of 12 validation examples none has"):
        _train(load_recipe("tiny_cpu"), "no/such-model", train_file, tmp_path, validation=disliked)


def test_a_missing_file_is_told_before_ray_is_asked(tiny_base: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        _train(load_recipe("tiny_cpu"), tiny_base, tmp_path / "none.jsonl", tmp_path)


def test_a_url_that_nobody_knows_is_told_at_once(tmp_path: Path) -> None:
    assert open_storage(str(tmp_path)) == (str(tmp_path), None)
    assert open_storage(f"file://{tmp_path}") == (f"file://{tmp_path}", None)
    with pytest.raises(CheckpointError, match=r"kept at nowhere://a/b: .*Give a folder"):
        open_storage("nowhere://a/b")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--recipe", "big", "--data", "none.jsonl"], "There is no recipe 'big'; there are"),
        (["--data", "none.jsonl"], "none.jsonl cannot be read"),
        (["--data", "empty.jsonl"], "empty.jsonl holds no training examples"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(
    arguments: list[str],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.jsonl").touch()
    monkeypatch.setattr(sys, "argv", ["launch", *arguments, "--out", "adapter"])
    with pytest.raises(SystemExit) as ended:
        launch._main()
    said = capsys.readouterr().err
    assert (ended.value.code, len(said.splitlines())) == (2, 1)
    assert complaint in said


@pytest.mark.parametrize("out", ["mine", "."])
def test_the_command_replaces_nothing_but_an_adapter(
    out: str,
    train_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    notes = tmp_path / out / "notes.txt"
    notes.parent.mkdir(exist_ok=True)
    notes.touch()
    # Without a base there is no run: only what is told before it counts.
    arguments = ["--data", str(train_file), "--base", "no/such-model", "--out", out]
    monkeypatch.setattr(sys, "argv", ["launch", *arguments])
    with pytest.raises(SystemExit) as ended:
        launch._main()
    said = capsys.readouterr().err
    assert (ended.value.code, len(said.splitlines())) == (2, 1)
    assert f"{notes.parent} is there already and is no adapter" in said
    assert notes.exists()


def test_a_folder_that_is_no_adapter_is_told_before_ray_is_asked(
    train_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "adapter").touch()
    with pytest.raises(AdapterError, match="is there already and is no adapter"):
        _train(load_recipe("tiny_cpu"), "no/such-model", train_file, tmp_path)


def test_what_is_near_to_a_frozen_suite_is_not_learned(
    examples: list[Example], train_file: Path, tmp_path: Path
) -> None:
    suite = freeze(examples[:3], name="support-v1", folder=tmp_path)
    kept, held_back = without_suites(examples, [suite])
    assert held_back
    assert {"e0", "e1", "e2"} <= set(held_back)
    assert [example.id for example in kept] == [
        example.id for example in examples if example.id not in held_back
    ]
    everything = freeze(examples, name="all", folder=tmp_path)
    with pytest.raises(DataError, match=r"All 12 training examples are near .*all\..*\.jsonl"):
        train(
            run_id="run",
            train_file=train_file,
            validation_file=None,
            recipe=load_recipe("tiny_cpu"),
            base_model="unused",
            parent_adapter=None,
            output_dir=tmp_path / "adapter",
            storage_path=str(tmp_path),
            suites=[everything],
        )


def _broken_adapter(base: str, folder: Path) -> Path:
    """An adapter whose first weights are not numbers."""
    model = new_adapter(
        load_base(base), rank=4, alpha=8, dropout=0, target_modules="all-linear", seed=0
    )
    with torch.no_grad():
        next(p for p in model.parameters() if p.requires_grad).fill_(float("nan"))
    write_adapter(model, folder, base_id=base)
    return folder
