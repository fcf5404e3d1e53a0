"""Learning together without showing data: python -m benchmarks.bench_federated [--quick]

The demo's people (`benchmarks.learning_world`) use three sites, which share no request. Each
site learns alone; all learn together with the exact average of their adapters, with one of
lower rank, and with steps that are clipped and noised; and one run has all data in one place.
Every site's epochs are the same in all arms. What is compared is the share of held-out
requests whose greedy answer the rubric calls good.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from benchmarks.learning_world import feedback, good, requests
from benchmarks.results import Figure, write_results
from training.alone import judge_adapter, learn
from training.base import load_base, load_tokenizer
from training.base_model.evaluate import answers
from training.config import Recipe, load_recipe
from training.encoding import Example
from training.federated.averaging import Averaging
from training.federated.rounds import Judged, Returned, federate
from training.lora import attach_adapter, write_adapter
from training.transport import Packed, pack, unpack

BASE = "embedded"
VALIDATION_SHARE = 0.2


class LocalSites:
    """Sites of this process: what travels is the same, nothing has to be waited for."""

    def __init__(self, data: Sequence[list[Example]], recipe: Recipe) -> None:
        self._recipe = recipe
        held_back = [round(VALIDATION_SHARE * len(examples)) for examples in data]
        self.train = [each[num:] for each, num in zip(data, held_back, strict=True)]
        self._held_out = [each[:num] for each, num in zip(data, held_back, strict=True)]

    def learn(self, turn: int, start: Packed | None) -> list[Returned]:
        """One after the other."""
        recipe = self._recipe.model_copy(update={"seed": self._recipe.seed + turn})
        found = []
        for examples in self.train:
            with tempfile.TemporaryDirectory() as folder:
                parent = None if start is None else unpack(start, Path(folder) / "start")
                learned = learn(recipe, BASE, examples, parent=parent)
                write_adapter(learned.model, Path(folder) / "adapter", base_id=BASE)
                found.append(
                    Returned(
                        adapter=pack(Path(folder) / "adapter"), num_samples=learned.num_examples
                    )
                )
        return found

    def judge(self, adapter: Packed) -> list[Judged]:
        """The same."""
        with tempfile.TemporaryDirectory() as folder:
            path = unpack(adapter, Path(folder) / "adapter")
            return [
                Judged(
                    loss=judge_adapter(self._recipe, BASE, examples, adapter=path).loss,
                    num_samples=len(examples),
                )
                for examples in self._held_out
            ]


def main() -> None:
    """Learn in every way on every seed, print what came of it and file it."""
    arguments = _arguments()
    torch.set_num_threads(1)
    started = time.process_time()
    runs = [run(seed, arguments) for seed in arguments.seeds]
    figures = compare(runs)
    figures.append(Figure("whole benchmark", time.process_time() - started, "CPU-s"))
    path = write_results(
        "federated",
        figures,
        sizes={key: value for key, value in vars(arguments).items() if key != "out"}
        | {"runs": runs},
        out=arguments.out,
    )
    for figure in figures:
        sys.stdout.write(f"{figure.name}: {figure.value:.3f} {figure.unit}\n")
    sys.stdout.write(f"written: {path}\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sites", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=2, help="of a site in a round")
    parser.add_argument("--requests", type=int, default=120, help="asked and rated per site")
    parser.add_argument("--held-out", type=int, default=120)
    parser.add_argument("--clip", type=float, default=2.0)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.01, 1.0])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds, arguments.sites, arguments.rounds = [1], 2, 1
        arguments.epochs, arguments.requests, arguments.held_out = 0.5, 30, 12
        arguments.noise = [1.0]
    return arguments


def run(seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """All arms on one seed's people."""
    base, tokenizer = load_base(BASE), load_tokenizer(BASE)
    held_out = requests(f"held-out-{seed}", arguments.held_out)
    data = [_site(f"{seed}-{site}", base, tokenizer, arguments) for site in range(arguments.sites)]
    local = _recipe(seed, epochs=arguments.epochs)
    whole = _recipe(seed, epochs=arguments.epochs * arguments.rounds)
    sites = LocalSites(data, local)
    found: dict[str, Any] = {
        "seed": seed,
        "examples": [len(examples) for examples in sites.train],
        "base": good(base, tokenizer, held_out)["rated_good"],
    }

    def judged(adapter: Path) -> float:
        model = attach_adapter(load_base(BASE), adapter, trainable=False).merge_and_unload()
        return float(good(model, tokenizer, held_out)["rated_good"])

    with tempfile.TemporaryDirectory() as folder:
        alone = []
        for site, examples in enumerate([*sites.train, [e for one in sites.train for e in one]]):
            learned = learn(whole, BASE, examples, parent=None)
            write_adapter(learned.model, Path(folder) / f"alone-{site}", base_id=BASE)
            alone.append(judged(Path(folder) / f"alone-{site}"))
        found |= {"alone": alone[:-1], "all data in one place": alone[-1]}
        for name, averaging in _ways(local, arguments).items():
            reports = federate(
                sites,
                num_rounds=arguments.rounds,
                averaging=averaging,
                out=Path(folder) / name,
                randomness=random.Random(seed).randbytes,
            )
            last = reports[-1]
            found[name] = {
                "rated_good": judged(Path(folder) / name),
                "rank": last.rank,
                "lost": max(report.lost for report in reports),
                "epsilon": last.epsilon if averaging.noise_multiplier else None,
                "clipped": [report.num_clipped for report in reports],
                "validation_loss": [report.validation_loss for report in reports],
            }
            sys.stdout.write(f"seed {seed}, {name}: {found[name]['rated_good']:.3f}\n")
            sys.stdout.flush()
    return found


def _ways(recipe: Recipe, arguments: argparse.Namespace) -> dict[str, Averaging]:
    rank = recipe.lora.rank
    return {
        "together, exact": Averaging(),
        "together, rank of one": Averaging(max_rank=rank),
        "together, clipped": Averaging(max_rank=rank, clip_norm=arguments.clip),
        **{
            f"together, clipped, noise {noise:g}": Averaging(
                max_rank=rank, clip_norm=arguments.clip, noise_multiplier=noise
            )
            for noise in arguments.noise
        },
    }


def _site(name: str, base: Any, tokenizer: Any, arguments: argparse.Namespace) -> list[Example]:
    asked = requests(f"people-{name}", arguments.requests)
    said = answers(base, tokenizer, asked, temperature=0.7, seed=sum(map(ord, name)))
    left = feedback(asked, said, rng=random.Random(f"opinions-{name}"))
    return [example for example in left if example.label is not False]


def _recipe(seed: int, *, epochs: float) -> Recipe:
    recipe = load_recipe("tiny_cpu")
    optimizer = recipe.optimizer.model_copy(update={"num_epochs": epochs, "min_steps": 1})
    return recipe.model_copy(update={"seed": seed, "optimizer": optimizer})


def compare(runs: Sequence[dict[str, Any]]) -> list[Figure]:
    """Means over the seeds, each way of learning together beside all data in one place."""
    central = mean(run["all data in one place"] for run in runs)
    figures = [
        Figure("rated good, base", mean(run["base"] for run in runs), "share"),
        Figure("rated good, a site alone", mean(mean(run["alone"]) for run in runs), "share"),
        Figure("rated good, all data in one place", central, "share"),
    ]
    for name in (name for name in runs[0] if name.startswith("together")):
        figures.append(
            Figure(
                f"rated good, {name}",
                mean(run[name]["rated_good"] for run in runs),
                "share",
                peer="all data in one place",
                peer_value=central,
            )
        )
        figures.append(Figure(f"rank, {name}", mean(run[name]["rank"] for run in runs), ""))
        figures.append(
            Figure(
                f"most lost to the rank, {name}", max(run[name]["lost"] for run in runs), "share"
            )
        )
        if runs[0][name]["epsilon"] is not None:
            figures.append(Figure(f"ε at δ = 1e-5, {name}", runs[0][name]["epsilon"], ""))
    return figures


if __name__ == "__main__":
    main()
