"""Which objective learns best from people: python -m benchmarks.bench_objectives [--seeds 1 2 …]

The demo's people without its endpoint: they ask the embedded base, and rate what comes
back by the rubric, one rating in ten being the opposite of what they think; some of the
disappointed write what they had wanted. Each objective trains on the same feedback, from
the same adapter, for the same number of steps; what is compared is the share of held-out
requests whose greedy answer the rubric calls good, over all and on the worst target tool.
"""

from __future__ import annotations

import argparse
import copy
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from benchmarks.results import Figure, write_results
from registry import prompts
from training.base import load_base, load_tokenizer
from training.base_model.evaluate import answers, rated_good, verdicts
from training.base_model.requests import Request, ideal, sample_request
from training.config import load_recipe
from training.encoding import Encoded, Example, encode_all
from training.loop import TrainingLoop
from training.parallel import Alone
from training.schedule import ObjectiveName
from training.setup import adapted_base, objective_of

# The people of flows/demo/people.py, who live behind Prefect and an endpoint.
RATING_RATE = 0.90
RATING_NOISE = 0.10
CORRECTION_RATE = 0.50
OBJECTIVES: tuple[ObjectiveName, ...] = ("sft", "dpo", "kto", "mixed")


def main() -> None:
    """Train every objective on every seed's feedback and file what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--requests", type=int, default=600, help="asked and rated per seed")
    parser.add_argument("--held-out", type=int, default=240)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--beta", type=float, default=0.1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds, arguments.requests = [1], 60
        arguments.held_out, arguments.steps = 24, 2
    torch.set_num_threads(1)
    runs = [_run(seed, arguments) for seed in arguments.seeds]
    figures = compare(runs)
    path = write_results(
        "objectives",
        figures,
        sizes={key: value for key, value in vars(arguments).items() if key != "out"}
        | {"runs": runs},
        out=arguments.out,
    )
    for figure in figures:
        sys.stdout.write(f"{figure.name}: {figure.value:.3f} {figure.unit}\n")
    sys.stdout.write(f"written: {path}\n")


def _run(seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    base, tokenizer = load_base("embedded"), load_tokenizer("embedded")
    asked = _requests(f"people-{seed}", arguments.requests)
    held_out = _requests(f"held-out-{seed}", arguments.held_out)
    said = answers(base, tokenizer, asked, temperature=0.7, seed=seed)
    examples = feedback(asked, said, rng=random.Random(f"opinions-{seed}"))
    encoded = encode_all(examples, tokenizer, max_tokens=512).examples
    found: dict[str, Any] = {
        "seed": seed,
        "pairs": sum(example.rejected is not None for example in examples),
        "accepted": sum(example.label is True for example in examples),
        "disliked": sum(example.label is False for example in examples),
        "base": _good(base, tokenizer, held_out),
    }
    for name in OBJECTIVES:
        started = time.process_time()
        tuned = _trained(name, encoded, arguments, seed=seed)
        seconds = time.process_time() - started
        found[name] = {"cpu_s": seconds, **_good(tuned, tokenizer, held_out)}
        sys.stdout.write(f"seed {seed}, {name}: {found[name]['rated_good']:.3f}\n")
        sys.stdout.flush()
    return found


def feedback(asked: Sequence[Request], said: Sequence[str], *, rng: random.Random) -> list[Example]:
    """What people leave behind: pairs, and answers with a thumb; unrated ones are left out."""
    found = []
    for number, (request, output, verdict) in enumerate(
        zip(asked, said, verdicts(asked, said), strict=True)
    ):
        if rng.random() >= RATING_RATE or not output.strip():
            continue
        pleased = verdict.good != (rng.random() < RATING_NOISE)
        example = Example(
            id=str(number),
            messages=(
                *prompts.messages(
                    request.text, target_tool=request.target_tool, language=request.language
                ),
                {"role": "assistant", "content": output},
            ),
            target_tool=request.target_tool,
            label=pleased,
        )
        if not pleased and not verdict.good and rng.random() < CORRECTION_RATE:
            answer = {"role": "assistant", "content": ideal(request)}
            example = replace(
                example,
                messages=(*example.messages[:-1], answer),
                rejected=output,
                label=None,
            )
        found.append(example)
    return found


def _trained(
    name: ObjectiveName, data: Sequence[Encoded], arguments: argparse.Namespace, *, seed: int
) -> torch.nn.Module:
    recipe = load_recipe("tiny_cpu")
    objective = recipe.objective.model_copy(update={"name": name, "beta": arguments.beta})
    recipe = recipe.model_copy(update={"seed": seed, "objective": objective})
    cpu = torch.device("cpu")
    model = adapted_base(recipe, "embedded", parent=None, device=cpu)
    settings = replace(recipe.loop_settings(len(data)), num_steps=arguments.steps)
    loop = TrainingLoop(
        model=model,
        dataset=data,
        settings=settings,
        collective=Alone(),
        objective=objective_of(recipe, device=cpu),
    )
    loop.run(lambda _: None)
    merged: torch.nn.Module = copy.deepcopy(model).merge_and_unload()
    return merged


def _good(model: Any, tokenizer: Any, requests: Sequence[Request]) -> dict[str, Any]:
    model.set_attn_implementation("sdpa")
    judged = verdicts(requests, answers(model, tokenizer, requests))
    by_tool = {
        tool: rated_good(
            [v for v, request in zip(judged, requests, strict=True) if request.target_tool == tool]
        )
        for tool in sorted({request.target_tool for request in requests})
    }
    return {"rated_good": rated_good(judged), "by_tool": by_tool}


def _requests(seed: str, number: int) -> list[Request]:
    rng = random.Random(seed)
    return [sample_request(rng) for _ in range(number)]


def compare(runs: Sequence[dict[str, Any]]) -> list[Figure]:
    """Means over the seeds, each objective beside SFT, seed by seed."""
    figures = [Figure("rated good, base", mean(run["base"]["rated_good"] for run in runs), "share")]
    sft = mean(run["sft"]["rated_good"] for run in runs)
    for name in OBJECTIVES:
        shares = [run[name]["rated_good"] for run in runs]
        gains = [run[name]["rated_good"] - run["sft"]["rated_good"] for run in runs]
        figures.append(
            Figure(f"rated good, {name}", mean(shares), "share", peer="sft", peer_value=sft)
        )
        if name != "sft":
            figures.append(Figure(f"{name} over sft, mean", mean(gains), "share"))
            figures.append(
                Figure(f"{name} better than sft", sum(gain > 0 for gain in gains), "seeds")
            )
        if name != "sft" and len(gains) > 1:
            figures.append(
                Figure(
                    f"{name} over sft, standard error", stdev(gains) / len(gains) ** 0.5, "share"
                )
            )
        worst = [min(run[name]["by_tool"].values()) for run in runs]
        figures.append(Figure(f"rated good on the worst tool, {name}", mean(worst), "share"))
        figures.append(
            Figure(f"training, {name}", mean(run[name]["cpu_s"] for run in runs), "CPU-s")
        )
    return figures


if __name__ == "__main__":
    main()
