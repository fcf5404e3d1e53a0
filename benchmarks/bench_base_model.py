"""The base model's figures: python -m benchmarks.bench_base_model [--quick] [--out FILE]

Slots copied by kind of word, free-typed requests understood, and answers rated good, over
several evaluation sets of words that training never saw.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, pstdev

import torch
from rich.console import Console
from rich.table import Table
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from benchmarks.results import Figure, at_least, within, write_results
from registry.prompts import TOOLS
from training.base_model import PATH, evaluate
from training.base_model.requests import Request, sample_request
from training.base_model.rubric import Verdict
from training.base_model.words import KINDS


class Bench:
    """One model and its sets of requests; each method yields figures of one theme."""

    def __init__(self, folder: Path, *, seeds: int, requests: int) -> None:
        self.model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder)
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
        self.seeds = range(seeds)
        self.requests = requests

    def slots(self) -> list[Figure]:
        """Slots right under greedy decoding, by kind of word; all kinds together last."""
        figures, everything = [], []
        for kind in KINDS:
            shares = []
            for seed in self.seeds:
                rng = evaluate.evaluation_rng(seed, kind)
                asked = [sample_request(rng, words=kind) for _ in range(self.requests)]
                judged = self._judged(asked, temperature=0.0, seed=seed)
                shares.append(evaluate.slots_right(judged))
                everything += judged
            figures.append(at_least(f"slots right, {kind}", mean(shares), _spread(shares), 0.95))
        total = evaluate.slots_right(everything)
        return [*figures, at_least("slots right, all kinds", total, "share", 0.95)]

    def tangled(self) -> list[Figure]:
        """Slots right in requests like those of training, which no one could always parse."""
        shares = []
        for seed in self.seeds:
            rng = evaluate.evaluation_rng(seed, "tangled")
            asked = [sample_request(rng, tangled=True) for _ in range(self.requests)]
            judged = self._judged(asked, temperature=0.0, seed=seed)
            shares.append(evaluate.slots_right(judged))
        return [Figure("slots right, tangled requests", mean(shares), _spread(shares))]

    def free(self) -> list[Figure]:
        """Free-typed requests whose task and audience are right."""
        asked = evaluate.free_requests()
        outputs = evaluate.answers(self.model, self.tokenizer, asked)
        right = [evaluate.understood(*pair) for pair in zip(asked, outputs, strict=True)]
        return [at_least("free-typed requests understood", mean(right), "share", 0.8)]

    def good(self, temperature: float) -> list[Figure]:
        """Answers rated good, over all tools and by tool."""
        mode = "greedy" if temperature == 0 else f"temperature {temperature:g}"
        by_seed, by_tool = [], {tool: list[bool]() for tool in TOOLS}
        for seed in self.seeds:
            rng = evaluate.evaluation_rng(seed, "good")
            asked = [sample_request(rng) for _ in range(self.requests)]
            judged = self._judged(asked, temperature=temperature, seed=seed)
            by_seed.append(evaluate.rated_good(judged))
            for request, verdict in zip(asked, judged, strict=True):
                by_tool[request.target_tool].append(verdict.good)
        total = within(f"rated good, {mode}", mean(by_seed), _spread(by_seed), 0.15, 0.45)
        tools = [
            Figure(f"rated good, {mode}, {tool}", mean(goods or [False]), "share")
            for tool, goods in by_tool.items()
        ]
        return [total, *tools]

    def speed(self) -> list[Figure]:
        """Tokens generated per CPU-second by plain transformers, one thread."""
        figures = []
        for batch in (1, 64):
            rng = evaluate.evaluation_rng(0, "speed")
            asked = [sample_request(rng) for _ in range(16 if batch == 1 else 64)]
            start = time.process_time()
            outputs = evaluate.answers(self.model, self.tokenizer, asked, batch=batch)
            spent = time.process_time() - start
            tokens = sum(len(ids) + 1 for ids in self.tokenizer(outputs)["input_ids"])
            name = f"generation speed, batch {batch}"
            figures.append(Figure(name, tokens / spent, "tokens per CPU-second"))
        return figures

    def _judged(self, asked: Sequence[Request], *, temperature: float, seed: int) -> list[Verdict]:
        outputs = evaluate.answers(
            self.model, self.tokenizer, asked, temperature=temperature, seed=seed
        )
        return evaluate.verdicts(asked, outputs)


def _spread(shares: Sequence[float]) -> str:
    return f"share, ± {pstdev(shares):.3f} over {len(shares)} seeds"


def _table(figures: Sequence[Figure]) -> Table:
    table = Table("figure", "value", "unit", "goal", "holds")
    for figure in figures:
        holds = "" if figure.holds is None else ("yes" if figure.holds else "no")
        table.add_row(figure.name, f"{figure.value:.3f}", figure.unit, figure.goal or "", holds)
    return table


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and write the result file."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, few requests")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--model", type=Path, default=PATH)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    seeds, requests = (1, 30) if options.quick else (5, 200)
    bench = Bench(options.model, seeds=seeds, requests=requests)
    figures = [
        *bench.slots(),
        *bench.tangled(),
        *bench.free(),
        *bench.good(0.0),
        *bench.good(0.8),
        *bench.speed(),
    ]
    Console().print(_table(figures))
    sizes = {
        "seeds": seeds,
        "requests per seed": requests,
        "parameters": bench.model.num_parameters(),
        "weights bytes": (options.model / "model.safetensors").stat().st_size,
    }
    write_results("base_model", figures, sizes=sizes, out=options.out)


if __name__ == "__main__":
    main()
