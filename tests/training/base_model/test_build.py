"""The build: same seed, same model; what is saved is what is loaded."""

from __future__ import annotations

import itertools
import json
import random
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from training.base_model import build
from training.base_model.build import Recipe
from training.base_model.requests import sample_request
from training.base_model.tokenizer import VOCABULARY, pieces, prompt_text, train_tokenizer

TINY = Recipe(
    hidden=16, layers=1, heads=2, feed_forward=16, copy_steps=2, copy_batch=2, steps=3, batch=2,
    pool=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(0)


def test_equal_seeds_train_equal_weights(tokenizer: PreTrainedTokenizerFast) -> None:
    first, second = (build.train(TINY, tokenizer, seed=3) for _ in range(2))
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_saved_model_loads_and_the_manifest_tells_its_digests(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = build.train(TINY, tokenizer, seed=0)
    build.save(model, tokenizer, tmp_path)
    build.write_manifest(tmp_path, seed=0, recipe=TINY, cpu_seconds=1.4)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.dtype == torch.float32
    for name, weight in loaded.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name].half().float())
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template == tokenizer.chat_template
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert {"model.safetensors", "tokenizer.json", "config.json"} <= set(manifest["files"])
    for name, facts in manifest["files"].items():
        assert facts["sha256"] == sha256((tmp_path / name).read_bytes()).hexdigest()


def test_the_loss_falls_on_one_batch(tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(0)
    trainer = build.Trainer(build.new_model(TINY, tokenizer), TINY)
    batch = next(build.request_batches(TINY, tokenizer, random.Random(0)))
    losses = [trainer.step(batch, 1.0) for _ in range(30)]
    assert losses[-1] < 0.8 * losses[0]


def test_only_answers_are_learned(tokenizer: PreTrainedTokenizerFast) -> None:
    batches = itertools.islice(build.request_batches(TINY, tokenizer, random.Random(0)), 3)
    for batch in batches:
        for inputs, targets in zip(batch.inputs, batch.targets, strict=True):
            learned = targets[targets >= 0]
            assert learned[-1] == tokenizer.eos_token_id
            assert str(tokenizer.decode(learned)).startswith("Role: ")
            first = int((targets >= 0).nonzero()[0])
            assert str(tokenizer.decode(inputs[: first + 1])).endswith("assistant\n")


def test_copy_batches_ask_only_for_what_was_shown() -> None:
    batch = next(build.copy_batches(TINY, 100, torch.Generator().manual_seed(0)))
    for inputs, targets in zip(batch.inputs, batch.targets, strict=True):
        shown = inputs[: int((inputs == 1).nonzero()[0])].tolist()
        asked = targets[targets >= 0].tolist()
        assert shown[-len(asked) :] == asked


def test_the_rate_warms_up_holds_and_falls(tokenizer: PreTrainedTokenizerFast) -> None:
    trainer = build.Trainer(build.new_model(TINY, tokenizer), TINY)
    assert trainer.rate(0, 1000) < 0.02
    assert trainer.rate(300, 1000) == pytest.approx(1.0)
    assert trainer.rate(750, 1000) == pytest.approx(0.3875)
    assert trainer.rate(1000, 1000) == pytest.approx(0.02)


def test_any_bytes_survive_the_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "naïve اجتماع 12,345 \u0000 \U0001f98a\t漢字"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer) == VOCABULARY
    assert len(tokenizer("2026")["input_ids"]) == 4
    assert len(pieces(tokenizer)) > 500


def test_the_training_prompt_is_what_the_chat_template_writes(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    from registry import prompts

    request = sample_request(random.Random(1))
    chat = prompts.messages(
        request.text, target_tool=request.target_tool, language=request.language
    )
    written = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert written == prompt_text(request)
