"""The shipped files: plain loading, the manifest's digests, copying of unseen words."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from training.base_model import PATH, evaluate
from training.base_model.requests import Request, sample_request
from training.base_model.tokenizer import train_tokenizer

Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return AutoModelForCausalLM.from_pretrained(PATH), AutoTokenizer.from_pretrained(PATH)


def test_the_files_are_those_of_the_manifest_and_small() -> None:
    manifest = json.loads((PATH / "manifest.json").read_text("utf-8"))
    on_disk = {path.name for path in PATH.iterdir()} - {"manifest.json"}
    assert on_disk == set(manifest["files"])
    assert "model.safetensors" in on_disk
    for name, facts in manifest["files"].items():
        content = (PATH / name).read_bytes()
        assert (sha256(content).hexdigest(), len(content)) == (facts["sha256"], facts["bytes"])
    assert sum(facts["bytes"] for facts in manifest["files"].values()) < 10_000_000


def test_the_script_still_makes_the_shipped_tokenizer() -> None:
    manifest = json.loads((PATH / "manifest.json").read_text("utf-8"))
    made = json.loads(train_tokenizer(manifest["seed"]).backend_tokenizer.to_str())
    shipped = json.loads((PATH / "tokenizer.json").read_text("utf-8"))
    assert made["model"] == shipped["model"]


def test_it_is_a_small_qwen3(loaded: Loaded) -> None:
    model, tokenizer = loaded
    assert model.config.model_type == "qwen3"
    assert 500_000 < model.num_parameters() < 1_500_000
    assert model.config.max_position_embeddings >= 1024
    assert tokenizer.pad_token is not None
    assert tokenizer.eos_token_id == model.config.eos_token_id


def test_unseen_words_are_copied(loaded: Loaded) -> None:
    asked = [
        sample_request(evaluate.evaluation_rng(1000 + number, kind), words=kind)
        for kind in ("english", "invented", "arabic", "accented", "names", "numbers")
        for number in range(24)
    ]
    judged = evaluate.verdicts(asked, evaluate.answers(*loaded, asked))
    assert evaluate.slots_right(judged) >= 0.93


def test_free_typed_requests_are_understood(loaded: Loaded) -> None:
    asked = evaluate.free_requests()
    assert len(asked) == 60
    assert {request.target_tool for request in asked} == {
        "email", "code", "report", "social", "image", "general",
    }  # fmt: skip
    outputs = evaluate.answers(*loaded, asked)
    understood = [evaluate.understood(*pair) for pair in zip(asked, outputs, strict=True)]
    assert sum(understood) >= 0.8 * len(asked)


def test_the_policy_is_mediocre(loaded: Loaded) -> None:
    rng = evaluate.evaluation_rng(1000, "good")
    asked = [sample_request(rng) for _ in range(100)]
    judged = evaluate.verdicts(asked, evaluate.answers(*loaded, asked))
    assert 0.1 <= evaluate.rated_good(judged) <= 0.5


def test_the_first_request_of_the_product_works(loaded: Loaded) -> None:
    request = Request("Write a professional email to request a meeting", "email", "en", {})
    (output,) = evaluate.answers(*loaded, [request])
    assert "\nTask: request a meeting\n" in output
    assert "\nTone: professional\n" in output


@pytest.mark.parametrize(
    "chat",
    [
        [{"role": "system", "content": "You are terse."}, {"role": "user", "content": "Hi"}],
        [{"role": "user", "content": ""}],
        [{"role": "user", "content": [{"type": "text", "text": "A list of parts"}]}],
        [
            {"role": "user", "content": "2+2?"},
            {"role": "assistant", "content": None},
            {"role": "tool", "content": "\x00\udcff🦊".encode("utf-8", "replace").decode()},
        ],
    ],
)  # fmt: skip
def test_no_chat_breaks_it(loaded: Loaded, chat: list[dict[str, object]]) -> None:
    model, tokenizer = loaded
    inputs = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    written = model.generate(**inputs, max_new_tokens=4)
    assert written.shape[1] > inputs["input_ids"].shape[1]


def test_the_template_marks_what_the_assistant_said(loaded: Loaded) -> None:
    tokenizer = loaded[1]
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Role: x"}]
    encoded = tokenizer.apply_chat_template(
        chat, return_dict=True, return_assistant_tokens_mask=True
    )
    marked = zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
    assert tokenizer.decode([token for token, mask in marked if mask]) == "Role: x<|im_end|>"
