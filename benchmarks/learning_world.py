"""The demo's people without its endpoint, for benchmarks of what is learned from them.

They ask the embedded base, and rate what comes back by the rubric, one rating in ten being
the opposite of what they think; some of the disappointed write what they had wanted.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from registry import prompts
from training.base_model.evaluate import answers, rated_good, verdicts
from training.base_model.requests import Request, ideal, sample_request
from training.config import Recipe
from training.encoding import Encoded, Example
from training.loop import TrainingLoop
from training.parallel import Alone
from training.setup import adapted_base, objective_of

# The people of flows/demo/people.py, who live behind Prefect and an endpoint.
RATING_RATE = 0.90
RATING_NOISE = 0.10
CORRECTION_RATE = 0.15
MAX_TOKENS = 512
_CPU = torch.device("cpu")


def requests(seed: str, number: int) -> list[Request]:
    """What people ask; the same for the same seed."""
    rng = random.Random(seed)
    return [sample_request(rng) for _ in range(number)]


def feedback(
    asked: Sequence[Request],
    said: Sequence[str],
    *,
    rng: random.Random,
    correction_rate: float = CORRECTION_RATE,
) -> list[Example]:
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
        if not pleased and not verdict.good and rng.random() < correction_rate:
            answer = {"role": "assistant", "content": ideal(request)}
            example = replace(
                example,
                messages=(*example.messages[:-1], answer),
                rejected=output,
                label=None,
            )
        found.append(example)
    return found


def trained(recipe: Recipe, data: Sequence[Encoded], *, num_steps: int) -> torch.nn.Module:
    """The embedded base with what `num_steps` steps of `recipe` on `data` taught it, merged."""
    model = adapted_base(recipe, "embedded", parent=None, device=_CPU)
    loop = TrainingLoop(
        model=model,
        dataset=data,
        settings=replace(recipe.loop_settings(len(data)), num_steps=num_steps),
        collective=Alone(),
        objective=objective_of(recipe, device=_CPU),
    )
    loop.run(lambda _: None)
    merged: torch.nn.Module = copy.deepcopy(model).merge_and_unload()
    return merged


def good(model: Any, tokenizer: Any, asked: Sequence[Request]) -> dict[str, Any]:
    """Share of `asked` whose greedy answer the rubric calls good: overall, and by target tool."""
    model.set_attn_implementation("sdpa")
    judged = verdicts(asked, answers(model, tokenizer, asked))
    by_tool = {
        tool: rated_good(
            [v for v, request in zip(judged, asked, strict=True) if request.target_tool == tool]
        )
        for tool in sorted({request.target_tool for request in asked})
    }
    return {"rated_good": rated_good(judged), "by_tool": by_tool}
