"""Any decoder of transformers is served as it is, or refused when it is loaded."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from serving.engine.continuous import Limits, TorchEngine
from serving.engine.model import ChatModel
from serving.errors import EngineError
from serving.jobs import Delta, Job, Reply

SHAPE = {
    "vocab_size": 259,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
SLIDING = {"sliding_window": 7, "layer_types": ["sliding_attention", "full_attention"] * 2}
SERVED = {
    "llama": LlamaConfig(**SHAPE),
    "mistral, short window": MistralConfig(**SHAPE, sliding_window=7),
    "qwen2": Qwen2Config(**{key: SHAPE[key] for key in SHAPE if key != "head_dim"}),
    "gemma3, two kinds of layers": Gemma3TextConfig(**{**SHAPE, "num_hidden_layers": 4}, **SLIDING),
    "gpt2": GPT2Config(
        vocab_size=259, n_embd=32, n_layer=2, n_head=4, eos_token_id=2, bos_token_id=None
    ),
}
FACTORS = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "factor": 2.0}
SERVED["phi3, two rotations"] = Phi3Config(
    **{**SHAPE, "num_key_value_heads": 4},
    original_max_position_embeddings=128,
    rope_parameters={"rope_type": "longrope", "rope_theta": 1e4, **FACTORS},
)
REFUSED = {
    "gemma2, soft caps": Gemma2Config(**{**SHAPE, "num_hidden_layers": 4}),
    "mamba, no keys and values": MambaConfig(vocab_size=259, hidden_size=32, num_hidden_layers=2),
}


def random_model(config: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return AutoModelForCausalLM.from_config(copy.deepcopy(config)).eval()


@pytest.mark.parametrize("name", SERVED)
def test_greedy_answers_are_those_of_generate(name: str, tiny_base: Path) -> None:
    plain = random_model(SERVED[name])
    limits = Limits(max_running=3, prompt_tokens=16)
    engine = TorchEngine(str(tiny_base), model=copy.deepcopy(plain), limits=limits)
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    jobs = [
        Job(
            messages=[{"role": "user", "content": text}],
            digest=None,
            max_new_tokens=20,
            temperature=0,
        )
        for text in ("hello", "a somewhat longer text, in pieces", "x")
    ]
    replies: list[list[Delta | Reply]] = [[] for _ in jobs]
    for job, reply in zip(jobs, replies, strict=True):
        engine.submit(job, reply.append)
        engine.step()
    while engine.step():
        continue
    for job, events in zip(jobs, replies, strict=True):
        prompt = torch.tensor([engine.model.encode(job.messages)])
        written = plain.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=20, do_sample=False
        )
        text = tokenizer.decode(written[0, prompt.shape[1] :], skip_special_tokens=True)
        assert [event.text for event in events] == [text]


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_would_be_served_wrongly_is_refused(name: str, tiny_base: Path) -> None:
    with pytest.raises(EngineError):
        TorchEngine(str(tiny_base), model=random_model(REFUSED[name]))


def test_no_row_grows_into_the_other_rotation_of_a_model_that_has_two(tiny_base: Path) -> None:
    engine = TorchEngine(str(tiny_base), model=random_model(SERVED["phi3, two rotations"]))
    assert engine.model.context == 128


def test_a_token_keeps_the_space_that_its_tokenizer_drops_at_a_start(
    tiny_base: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "base")
    vocabulary = ["<|endoftext|>", "<|im_end|>", "▁", "a", "b", "▁b"]
    tokenizer = Tokenizer(BPE({piece: i for i, piece in enumerate(vocabulary)}, [("▁", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    # As Llama 2 and Mistral have it.
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", chat_template="x"
    ).save_pretrained(base)
    model = ChatModel(str(base), device=torch.device("cpu"), dtype=torch.float32)
    assert model.decode([5, 5]) == "b b"
    assert [model.piece(token) for token in (5, 4, 2)] == [" b", "b", " "]
