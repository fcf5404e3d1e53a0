"""One way to train, in a process of its own: python -m benchmarks.training_arms '{…}'

Every arm gets the same model, the same LoRA and the same conversations, and writes one
line of JSON: what it took and what it learned. Needs torch, transformers, peft and numpy;
the arms of TRL need trl and datasets besides.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from benchmarks.shapes import SHAPES
from training.encoding import Encoded
from training.loop import TrainingLoop, mean_loss
from training.objectives import Objective
from training.packable import enable_packing, recompute_activations
from training.parallel import Alone
from training.schedule import LoopSettings, ObjectiveSettings
from training.thin_lora import make_thin
from training.thin_norm import make_norms_thin

SIZES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2,
             "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32,
             "vocab_size": 4096},
    **SHAPES,
}  # fmt: skip
"""Shapes of the models; their weights are random."""
MAX_TOKENS = 1024
LEARNING_RATE = 2e-3
_WORDS = 64
"""Words of the made-up language; each is followed by one of four others."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What an arm is asked to do."""

    arm: str
    size: str
    device: str
    dtype: str
    num_examples: int
    batch: int
    tokens_per_pass: int
    checkpointing: bool = False
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of it."""

    tokens: int
    """Of the conversations, prompts included and padding not; the first step left out."""
    seconds: float
    """CPU-seconds of the process, all threads; on a GPU seconds by the clock."""
    peak_bytes: int
    """Most memory of the process; on a GPU most that torch held there."""
    loss: float
    """Held-out nats per learned token, after all steps."""


def conversations(task: Task, *, held_out: bool = False) -> list[Encoded]:
    """Prompts of 16 to 768 tokens, most near 130; answers of 8 to 256, most near 60.

    Lengths are log-normal, as those of people's conversations are; what is written is a
    random walk, so that there is something to learn.
    """
    rng = np.random.default_rng([task.seed, held_out])
    vocabulary = SIZES[task.size]["vocab_size"]
    words = np.random.default_rng(7).integers(3, vocabulary, _WORDS)
    number = 16 if held_out else task.num_examples
    prompts = np.exp(rng.normal(np.log(130), 0.8, number)).clip(16, 768).astype(int)
    answers = np.exp(rng.normal(np.log(60), 0.6, number)).clip(8, 256).astype(int)
    found = []
    for prompt, answer in zip(prompts, answers, strict=True):
        steps = rng.integers(1, 5, prompt + answer - 1)
        walk = np.concatenate([[rng.integers(_WORDS)], steps]).cumsum() % _WORDS
        found.append(Encoded(input_ids=words[walk].astype(np.int32), num_learned=int(answer)))
    return found


def plain_model(task: Task) -> Qwen3ForCausalLM:
    """The base, the same for every arm."""
    torch.manual_seed(0)
    config = Qwen3Config(
        **SIZES[task.size], tie_word_embeddings=task.size != "8B", eos_token_id=1, pad_token_id=0
    )
    with torch.device(task.device):
        model = Qwen3ForCausalLM(config).to(getattr(torch, task.dtype))
    return model


def lora_config() -> LoraConfig:
    """Rank 16 on every linear layer."""
    return LoraConfig(
        task_type="CAUSAL_LM", r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear"
    )


class Meter:
    """Clock and tokens from the second step on."""

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        self._started: float | None = None
        self.seconds = 0.0
        self.steps = 0

    def step_done(self) -> None:
        """A step has ended; the first one starts the clock."""
        now = self._now()
        if self._started is None:
            self._started = now
        self.seconds = now - self._started
        self.steps += 1

    def _now(self) -> float:
        if not self._cuda:
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def peak_bytes(self) -> int:
        """Most memory so far."""
        if self._cuda:
            return int(torch.cuda.max_memory_allocated())
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def ours(task: Task, examples: Sequence[Encoded], meter: Meter) -> torch.nn.Module:
    """`training.loop`, as `training.worker` sets it up."""
    model, loop = _our_loop(task, examples)
    loop.run(lambda _: meter.step_done())
    return model


def _our_loop(task: Task, examples: Sequence[Encoded]) -> tuple[torch.nn.Module, TrainingLoop]:
    base = plain_model(task)
    enable_packing(base)
    model = get_peft_model(base, lora_config())
    if task.checkpointing:
        recompute_activations(base)
    make_thin(model)
    make_norms_thin(model)
    if task.arm == "ours-compiled":
        for layer in base.model.layers:
            # Attention goes conversation by conversation, and would be compiled for every length.
            for part in (layer.mlp, layer.input_layernorm, layer.post_attention_layernorm):
                part.compile(dynamic=True)
    loop = TrainingLoop(
        model=model,
        dataset=examples,
        settings=LoopSettings(
            num_steps=len(examples) // task.batch,
            global_batch=task.batch,
            tokens_per_pass=task.tokens_per_pass,
            learning_rate=LEARNING_RATE,
            warmup_steps=0,
            schedule="constant",
            weight_decay=0.0,
            max_grad_norm=1.0,
            balance_by_tool=False,
            seed=0,
        ),
        collective=Alone(),
        objective=_objective(task),
    )
    return model, loop


def _objective(task: Task) -> Objective:
    return Objective(
        ObjectiveSettings(),
        device=torch.device(task.device),
        tokens_per_pass=task.tokens_per_pass,
    )


def plain(task: Task, examples: Sequence[Encoded], meter: Meter) -> torch.nn.Module:
    """What one writes by hand with transformers and PEFT: padded batches, the model's loss."""
    model = get_peft_model(plain_model(task), lora_config())
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.0)
    micro = _micro_batch(task)
    for start in range(0, len(examples) - task.batch + 1, task.batch):
        batch = examples[start : start + task.batch]
        learned = sum(example.num_learned for example in batch)
        for first in range(0, len(batch), micro):
            inputs = _padded(batch[first : first + micro], task.device)
            model(**inputs, num_items_in_batch=learned, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        meter.step_done()
    return model


def _micro_batch(task: Task) -> int:
    """Conversations per forward pass where they are padded: 4, as TRL's documents have it."""
    return min(task.batch, 4)


def _padded(examples: Sequence[Encoded], device: str) -> dict[str, torch.Tensor]:
    width = max(len(example.input_ids) for example in examples)
    ids = torch.zeros(len(examples), width, dtype=torch.long)
    labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
    for row, example in enumerate(examples):
        length = len(example.input_ids)
        ids[row, :length] = torch.from_numpy(example.input_ids)
        mask[row, :length] = 1
        labels[row, length - example.num_learned : length] = ids[
            row, length - example.num_learned : length
        ]
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return {name: tensor.to(device) for name, tensor in batch.items()}


def trl(task: Task, examples: Sequence[Encoded], meter: Meter) -> torch.nn.Module:
    """TRL's SFTTrainer: `trl` as it comes, `trl-tuned`, `trl-packing` or `trl-padding-free`."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            meter.step_done()

    rows = {
        "input_ids": [example.input_ids.tolist() for example in examples],
        "completion_mask": [
            [0] * (len(example.input_ids) - example.num_learned) + [1] * example.num_learned
            for example in examples
        ],
    }
    model = plain_model(task)
    micro, accumulated = _micro_batch(task), task.batch // _micro_batch(task)
    if task.arm == "trl-packing":
        # As many packs per step as hold about as many tokens as the other arms' steps.
        mean = sum(len(example.input_ids) for example in examples) / len(examples)
        micro, accumulated = 1, max(1, round(task.batch * mean / MAX_TOKENS))
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder,
            max_length=None if task.arm == "trl-padding-free" else MAX_TOKENS,
            completion_only_loss=True,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=accumulated,
            num_train_epochs=1,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            use_cpu=task.device == "cpu",
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            dataset_num_proc=None,
            **TRL_SETTINGS[task.arm],
            **({"bf16": task.dtype == "bfloat16"} if task.arm != "trl" else {"bf16": False}),
        )
        trainer = SFTTrainer(
            model=model,
            args=config,
            train_dataset=Dataset.from_dict(rows),
            processing_class=_tokenizer(task),
            peft_config=lora_config(),
            callbacks=[Clock()],
        )
        trainer.train()
    trained: torch.nn.Module = trainer.model
    return trained


TRL_SETTINGS: dict[str, dict[str, Any]] = {
    "trl": {},
    "trl-tuned": {"gradient_checkpointing": False, "train_sampling_strategy": "group_by_length"},
    "trl-packing": {"gradient_checkpointing": False, "packing": True},
    "trl-padding-free": {"gradient_checkpointing": False, "padding_free": True},
}
ARMS: dict[str, Callable[[Task, Sequence[Encoded], Meter], torch.nn.Module]] = {
    "ours": ours,
    "ours-compiled": ours,
    "plain": plain,
    **dict.fromkeys(TRL_SETTINGS, trl),
}


def _tokenizer(task: Task) -> PreTrainedTokenizerFast:
    """TRL wants one, and asks it for its special tokens alone."""
    from tokenizers import Tokenizer, models

    vocabulary = {f"w{index}": index for index in range(SIZES[task.size]["vocab_size"])}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="w2")),
        pad_token="w0",
        eos_token="w1",
    )


def run(task: Task) -> Outcome:
    """Train with the arm that `task` names, and see what it learned."""
    examples, meter = conversations(task), Meter(task.device)
    model = ARMS[task.arm](task, examples, meter)
    peak = meter.peak_bytes()
    tokens = sum(len(example.input_ids) for example in examples)
    _judge_plainly(model)
    loss = mean_loss(
        model,
        conversations(task, held_out=True),
        collective=Alone(),
        objective=_objective(task),
    )
    return Outcome(
        tokens=round(tokens * (meter.steps - 1) / meter.steps),
        seconds=meter.seconds,
        peak_bytes=peak,
        loss=loss,
    )


def _judge_plainly(model: torch.nn.Module) -> None:
    """All arms are judged by the same arithmetic: PEFT's and torch's own."""
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    base.set_attn_implementation("sdpa")
    for module in model.modules():
        module.__dict__.pop("forward", None)


def _main() -> None:
    outcome = run(Task(**json.loads(sys.argv[1])))
    sys.stdout.write(json.dumps(asdict(outcome)) + "\n")


if __name__ == "__main__":
    _main()
