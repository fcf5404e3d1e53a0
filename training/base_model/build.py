"""Build the embedded base model: python -m training.base_model.build [--seed N] [--out DIR]

One thread, CPU, fp32; the cost is in README.md beside this file. The same seed gives the
same data and the same initial weights; weights agree to rounding between machines.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from training.base_model import PATH
from training.base_model.muon import Muon
from training.base_model.policy import mediocre
from training.base_model.requests import sample_request
from training.base_model.tokenizer import (
    END,
    MAX_POSITIONS,
    pieces,
    prompt_text,
    train_tokenizer,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is trained, and for how long."""

    hidden: int = 128
    layers: int = 3
    heads: int = 4
    feed_forward: int = 384
    copy_steps: int = 250
    """Steps of the first stage: repeat random tokens."""
    copy_batch: int = 64
    steps: int = 5400
    """Steps of the second stage: answer requests."""
    batch: int = 16
    muon_rate: float = 0.01
    """Learning rate of the matrices."""
    adam_rate: float = 3e-3
    """Learning rate of embeddings and norms."""
    warmup: int = 100
    pool: int = 8
    """Batches drawn together and cut by length, so that little is padding."""


def new_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """An untrained model of the recipe's shape."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=recipe.feed_forward,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        head_dim=recipe.hidden // recipe.heads,
        max_position_embeddings=MAX_POSITIONS,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        use_cache=True,
        dtype="float32",
    )
    return Qwen3ForCausalLM(config)


@dataclass(frozen=True)
class Batch:
    """Right-padded token ids and where the answers' tokens are predicted."""

    inputs: Tensor
    """[rows, length]"""
    targets: Tensor
    """[rows, length], −100 outside answers: the token after each position."""


def copy_batches(recipe: Recipe, vocabulary: int, generator: torch.Generator) -> Iterator[Batch]:
    """Random tokens, a separator, the same tokens again from a random place."""
    while True:
        length = int(torch.randint(10, 33, (), generator=generator))
        shape = (recipe.copy_batch, length)
        tokens = torch.randint(3, vocabulary, shape, generator=generator)
        start = int(torch.randint(0, length // 2, (), generator=generator))
        line = torch.full((recipe.copy_batch, 1), 1)
        rows = torch.cat([tokens, line, tokens[:, start:]], dim=1)
        targets = rows[:, 1:].clone()
        targets[:, : length + 1] = -100
        yield Batch(rows[:, :-1], targets)


def request_batches(
    recipe: Recipe, tokenizer: PreTrainedTokenizerFast, rng: random.Random
) -> Iterator[Batch]:
    """Requests with mediocre answers, never the same words twice."""
    fragments = pieces(tokenizer)
    while True:
        asked, answered = [], []
        for _ in range(recipe.batch * recipe.pool):
            request = sample_request(rng, unseen=False, tangled=True, pieces=fragments)
            asked.append(prompt_text(request))
            answered.append(mediocre(request, rng) + END)
        rows = list(
            zip(tokenizer(asked)["input_ids"], tokenizer(answered)["input_ids"], strict=True)
        )
        rows.sort(key=lambda row: len(row[0]) + len(row[1]))
        batches = [rows[i : i + recipe.batch] for i in range(0, len(rows), recipe.batch)]
        rng.shuffle(batches)
        yield from map(_padded, batches)


def _padded(rows: list[tuple[list[int], list[int]]]) -> Batch:
    longest = max(len(asked) + len(answer) for asked, answer in rows)
    tokens = torch.zeros(len(rows), longest, dtype=torch.long)
    targets = torch.full((len(rows), longest), -100)
    for row, (asked, answer) in enumerate(rows):
        end = len(asked) + len(answer)
        tokens[row, :end] = torch.tensor(asked + answer)
        targets[row, len(asked) - 1 : end - 1] = torch.tensor(answer)
    return Batch(tokens[:, :-1], targets[:, :-1])


class Trainer:
    """Two optimizers under one schedule: warm-up, flat to a third of the way, down to 2 %."""

    def __init__(self, model: Qwen3ForCausalLM, recipe: Recipe) -> None:
        self.model = model
        self.recipe = recipe
        matrices = [w for n, w in model.named_parameters() if w.ndim == 2 and "embed" not in n]
        ids = {id(w) for w in matrices}
        others = [w for w in model.parameters() if id(w) not in ids]
        self.optimizers: list[torch.optim.Optimizer] = [
            Muon(matrices, lr=recipe.muon_rate),
            torch.optim.AdamW(others, lr=recipe.adam_rate, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        self.peaks = (recipe.muon_rate, recipe.adam_rate)

    def rate(self, step: int, steps: int) -> float:
        """The share of the peak learning rate at `step` of `steps`."""
        down = min(1.0, 1.5 * (1 - step / steps))
        return min((step + 1) / self.recipe.warmup, 0.02 + 0.98 * down)

    def step(self, batch: Batch, share: float) -> float:
        """One update; the batch's mean loss per answer token, in nats."""
        hidden = self.model.model(input_ids=batch.inputs, use_cache=False).last_hidden_state
        answers = batch.targets >= 0
        logits = self.model.lm_head(hidden[answers])
        loss = functional.cross_entropy(logits, batch.targets[answers])
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer, peak in zip(self.optimizers, self.peaks, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * share
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())


def train(
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerFast,
    *,
    seed: int,
    checkpoints: Path | None = None,
) -> Qwen3ForCausalLM:
    """Both stages; with `checkpoints`, the model so far is saved there now and then."""
    torch.manual_seed(seed)
    model = new_model(recipe, tokenizer)
    trainer = Trainer(model, recipe)
    generator = torch.Generator().manual_seed(seed)
    stages = (
        ("copy", recipe.copy_steps, copy_batches(recipe, len(tokenizer), generator)),
        ("task", recipe.steps, request_batches(recipe, tokenizer, random.Random(seed))),
    )
    for stage, steps, batches in stages:
        losses: list[float] = []
        for step, batch in enumerate(itertools.islice(batches, steps)):
            share = trainer.rate(step, steps if stage == "task" else 4 * steps)
            losses.append(trainer.step(batch, share))
            if (step + 1) % 100 == 0 or step + 1 == steps:
                mean, losses = sum(losses) / len(losses), []
                spent = time.process_time()
                logger.info("%s %d/%d loss %.4f cpu %.0f s", stage, step + 1, steps, mean, spent)
            if checkpoints is not None and stage == "task" and (step + 1) % 500 == 0:
                save(model, tokenizer, checkpoints)
    return model


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """The files that `from_pretrained` reads; weights in fp16, read back as fp32."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: tensor.detach().half().contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"
    }
    save_file(weights, folder / "model.safetensors.tmp", metadata={"format": "pt"})
    os.replace(folder / "model.safetensors.tmp", folder / "model.safetensors")
    model.config.architectures = ["Qwen3ForCausalLM"]
    model.config.save_pretrained(folder)
    GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=160,
        do_sample=False,
        eos_token_id=model.config.eos_token_id,
        pad_token_id=model.config.pad_token_id,
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_manifest(folder: Path, *, seed: int, recipe: Recipe, cpu_seconds: float) -> None:
    """manifest.json: how the files were made, and the digest and size of each."""
    files = {
        path.name: {"sha256": sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != "manifest.json"
    }
    manifest = {
        "command": f"python -m training.base_model.build --seed {seed}",
        "seed": seed,
        "recipe": asdict(recipe),
        "cpu_seconds": round(cpu_seconds),
        "torch": torch.__version__,
        "files": files,
    }
    temporary = folder / "manifest.json.tmp"
    temporary.write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
    os.replace(temporary, folder / "manifest.json")


def main(arguments: list[str] | None = None) -> None:
    """Build into the shipped folder, or `--out`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=PATH)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    recipe = Recipe(steps=options.steps)
    tokenizer = train_tokenizer(options.seed)
    model = train(recipe, tokenizer, seed=options.seed, checkpoints=options.out)
    save(model, tokenizer, options.out)
    write_manifest(options.out, seed=options.seed, recipe=recipe, cpu_seconds=time.process_time())


if __name__ == "__main__":
    main()
