"""Shared by the training tests: a tiny base model, and examples that it can learn."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import ray
import torch
from transformers import PreTrainedTokenizerBase

from tests.support.tiny_model import make_tiny_model
from training.base import load_tokenizer
from training.encoding import Encoded, Example, encode_all


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a loadable base model."""
    return str(make_tiny_model(tmp_path_factory.mktemp("base")))


@pytest.fixture(scope="session")
def tokenizer(tiny_base: str) -> PreTrainedTokenizerBase:
    """The tiny base's tokenizer: one token a byte."""
    return load_tokenizer(tiny_base)


@pytest.fixture(scope="session")
def examples() -> list[Example]:
    """Twelve short conversations of three tools, with answers of different lengths."""
    return [
        Example(
            id=f"e{number}",
            messages=(
                {"role": "user", "content": "Write " + "very " * (number % 4) + f"{number}"},
                {"role": "assistant", "content": f"Role: {'x' * (1 + number)}"},
            ),
            target_tool=("email", "code", "social")[number % 3],
            weight=2.0 if number == 3 else 1.0,
        )
        for number in range(12)
    ]


@pytest.fixture(scope="session")
def encoded(examples: list[Example], tokenizer: PreTrainedTokenizerBase) -> tuple[Encoded, ...]:
    """The conversations as token ids."""
    return encode_all(examples, tokenizer, max_tokens=128).examples


@pytest.fixture(scope="package")
def ray_cluster() -> Iterator[None]:
    """A local Ray of the training tests' own."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
