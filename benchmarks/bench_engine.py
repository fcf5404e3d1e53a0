"""The engine's speed: python -m benchmarks.bench_engine [--device cuda] [--rounds N] [--out FILE]

Tokens generated per CPU-second (on a GPU: per second), at 1, 8 and 32 requests at a time of
mixed prompt and answer lengths, against transformers' own continuous batching and against
`generate` called for one request after the other; and what two adapters in one batch cost
over one. All in one process, in turns, the median of the rounds. Needs torch, transformers,
peft and safetensors alone.
"""

from __future__ import annotations

import argparse
import copy
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.generation import ContinuousBatchingConfig

from benchmarks.results import Figure, write_results
from benchmarks.shapes import SHAPES
from registry.base_model import resolve
from serving.engine.continuous import Limits, TorchEngine
from serving.jobs import Delta, Job, Reply

CONCURRENCY = (1, 8, 32)
SIZES: dict[str, dict[str, int] | None] = {"tiny": None, **SHAPES}
"""Shapes of the models; tiny is the embedded base, the others have random weights."""
DEVICE_SIZES = {"cpu": ("tiny", "34M"), "cuda": ("0.6B", "8B")}


@dataclass(frozen=True)
class Asked:
    """One request of the load: token ids of its prompt, and how many to write."""

    prompt: list[int]
    new_tokens: int


@dataclass(frozen=True)
class Run:
    """What a runner did in a round."""

    tokens: int
    seconds: float
    """CPU-seconds of the process, all threads; on a GPU seconds by the clock."""

    @property
    def speed(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds


def load_of(number: int, *, seed: int) -> list[Asked]:
    """Eight requests for each at a time: prompts of 16 to 192 tokens, answers of 16 to 96.

    As the last ones are answered nobody takes their places: of two requests for each of 32 at a
    time, a step had 19 rows on average; of eight, it has 28.
    """
    rng = random.Random(seed)
    return [
        Asked([rng.randrange(3, 2000) for _ in range(rng.randint(16, 192))], rng.randint(16, 96))
        for _ in range(8 * number)
    ]


class Bench:
    """One model, run in three ways on the same weights."""

    def __init__(self, size: str, *, device: str, folder: Path) -> None:
        self.cuda = device == "cuda"
        dtype = torch.bfloat16 if self.cuda else torch.float32
        base = resolve("embedded")
        self.plain = _model(size, base, dtype).to(device).eval()
        self.plain.generation_config.eos_token_id = None
        # Weights are shared: only what computes attention differs.
        twin = type(self.plain)._from_config(copy.deepcopy(self.plain.config), dtype=dtype)
        twin.load_state_dict(self.plain.state_dict(), assign=True)
        twin.tie_weights()
        self.engine = TorchEngine(
            base, device=device, dtype=dtype, model=twin, limits=Limits(max_running=32)
        )
        self.engine.model.ends = frozenset()
        for number, name in enumerate(("one", "two")):
            self.engine.load(name, _adapter(self.plain.config, folder / name, seed=number))

    def ours(
        self, load: Sequence[Asked], number: int, adapters: Sequence[str | None] = (None,)
    ) -> Run:
        """Requests through the engine, `number` at a time; adapters in turn."""
        tokens = 0
        coming = iter(enumerate(load))

        def count(event: Delta | Reply) -> None:
            nonlocal tokens
            assert isinstance(event, Reply)
            assert event.ok, event
            tokens += event.tokens_output
            for place, asked in islice(coming, 1):
                submit(place, asked)

        def submit(place: int, asked: Asked) -> None:
            job = Job(
                messages=[{"role": "user", "content": str(place)}],
                digest=adapters[place % len(adapters)],
                max_new_tokens=asked.new_tokens,
                temperature=0,
            )
            self.engine.submit(job, count)

        # The load is given in token ids, so that all three get the very same.
        prompts = {str(place): asked.prompt for place, asked in enumerate(load)}
        self.engine.model.encode = lambda messages: prompts[messages[0]["content"]]  # type: ignore[method-assign]

        def work() -> int:
            for place, asked in islice(coming, number):
                submit(place, asked)
            while self.engine.step():
                continue
            return tokens

        return self._timed(work)

    def continuous(self, load: Sequence[Asked], number: int, manager: Any) -> Run:
        """The same through a running manager of transformers' continuous batching."""

        def work() -> int:
            coming = iter(load)
            for asked in islice(coming, number):
                manager.add_request(asked.prompt, max_new_tokens=asked.new_tokens)
            tokens = 0
            for _ in load:
                result = None
                while result is None or not result.is_finished():
                    result = manager.get_result(timeout=1)
                tokens += len(result.generated_tokens)
                for asked in islice(coming, 1):
                    manager.add_request(asked.prompt, max_new_tokens=asked.new_tokens)
            return tokens

        return self._timed(work)

    def sequential(self, load: Sequence[Asked]) -> Run:
        """`generate` for one request after the other."""

        def work() -> int:
            for asked in load:
                prompt = torch.tensor([asked.prompt], device=self.plain.device)
                self.plain.generate(
                    input_ids=prompt,
                    attention_mask=torch.ones_like(prompt),
                    max_new_tokens=asked.new_tokens,
                    do_sample=False,
                    pad_token_id=0,
                )
            return sum(asked.new_tokens for asked in load)

        return self._timed(work)

    def manager(self) -> Any:
        """transformers' continuous batching, sized by its own rules, without an end mark."""
        return self.plain.continuous_batching_context_manager(
            generation_config=GenerationConfig(
                do_sample=False, eos_token_id=-1, pad_token_id=0, max_new_tokens=96
            ),
            continuous_batching_config=ContinuousBatchingConfig(
                # On a CPU it would take most of the machine's memory at once.
                max_memory_percent=None if self.cuda else 0.1
            ),
        )

    def _timed(self, work: Callable[[], int]) -> Run:
        clock = time.perf_counter if self.cuda else time.process_time
        if self.cuda:
            torch.cuda.synchronize()
        started = clock()
        tokens = work()
        if self.cuda:
            torch.cuda.synchronize()
        return Run(tokens, clock() - started)


def warm_up(bench: Bench) -> None:
    """Everything once: what is done only the first time is not measured."""
    load = load_of(2, seed=0)
    bench.sequential(load[:1])
    for adapters in ((None,), ("one",), ("one", "two")):
        bench.ours(load, 2, adapters)
    with bench.manager() as manager:
        bench.continuous(load, 2, manager)


def measure(size: str, bench: Bench, *, rounds: int) -> list[Figure]:
    """All figures of one model; the ways take turns, so that noise hits all alike."""
    figures = []
    unit = "tokens per second" if bench.cuda else "tokens per CPU-second"
    warm_up(bench)
    for number in CONCURRENCY:
        last = number == CONCURRENCY[-1]
        ours, theirs, alone, one, two = [], [], [], [], []
        for seed in range(rounds):
            load = load_of(number, seed=seed)
            # One after the other, a part of the load tells the speed of all of it.
            alone.append(bench.sequential(load[:16]))
            ours.append(bench.ours(load, number))
            with bench.manager() as manager:
                theirs.append(bench.continuous(load, number, manager))
            if last:
                one.append(bench.ours(load, number, ("one",)))
                two.append(bench.ours(load, number, ("one", "two")))
        at = f"{size}, {number} at a time"
        speed = _median(ours)
        figures += [
            _over(f"{at}", speed, unit, "transformers' continuous batching", _median(theirs),
                  1.5 if last else None),
            _over(f"{at}", speed, unit, "generate, one by one", _median(alone),
                  8 if last else None),
        ]  # fmt: skip
        if last:
            figures.append(
                _over(f"{at}, two adapters mixed", _median(two), unit, "one adapter",
                      _median(one), 1 / 1.15)
            )  # fmt: skip
    return figures


def _median(runs: Sequence[Run]) -> float:
    return median(run.speed for run in runs)


def _over(
    name: str, value: float, unit: str, peer: str, peer_value: float, goal: float | None
) -> Figure:
    if goal is None:
        return Figure(name, value, unit, peer=peer, peer_value=peer_value)
    holds = value / peer_value >= goal
    return Figure(name, value, unit, peer, peer_value, goal=f"≥ {goal:.3g} ×", holds=holds)


def _model(size: str, base: str, dtype: torch.dtype) -> Any:
    shape = SIZES[size]
    if shape is None:
        return AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    config = Qwen3Config(
        **shape, max_position_embeddings=2048, tie_word_embeddings=True, eos_token_id=None
    )
    torch.manual_seed(0)
    return Qwen3ForCausalLM._from_config(config, dtype=dtype)


def _adapter(config: Any, folder: Path, *, seed: int) -> Path:
    """A LoRA of rank 8 on all linear layers, made without the base's weights."""
    with torch.device("meta"):
        model = Qwen3ForCausalLM(config)
        lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        peft = get_peft_model(model, lora)
    torch.manual_seed(seed)
    peft.to_empty(device="cpu")
    for name, parameter in peft.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.01)
    peft.save_pretrained(folder)
    return folder


def _print(figures: Sequence[Figure]) -> None:
    for figure in figures:
        line = (
            f"{figure.name:42} {figure.value:9.0f} {figure.unit}, "
            f"{figure.ratio or 0:5.2f} × {figure.peer} ({figure.peer_value:.0f})"
        )
        if figure.goal:
            line += f"  {figure.goal}: {'yes' if figure.holds else 'no'}"
        print(line, flush=True)  # noqa: T201


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and write the result file."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--device", choices=tuple(DEVICE_SIZES), default="cpu")
    parser.add_argument("--size", choices=tuple(SIZES), action="append")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    figures: list[Figure] = []
    for size in options.size or DEVICE_SIZES[options.device]:
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(size, device=options.device, folder=Path(folder))
            found = measure(size, bench, rounds=options.rounds)
        _print(found)
        figures += found
    sizes = {"rounds": options.rounds, "prompt tokens": "16 to 192", "new tokens": "16 to 96"}
    write_results("engine", figures, sizes=sizes, out=options.out)


if __name__ == "__main__":
    main()
