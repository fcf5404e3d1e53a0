"""Generates answers: one base model, all live adapters, batches that mix them.

Knows nothing of HTTP, databases or Ray. One thread generates at a time; adapters may be
loaded and unloaded from another meanwhile.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from serving.errors import EngineError, NotLoadedError, PromptTooLongError
from serving.sampling import Sampler, SamplingParams
from serving.stacked_lora import StackedLora


@dataclass(frozen=True, kw_only=True)
class EngineRequest:
    """One chat to answer."""

    messages: Sequence[Mapping[str, Any]]
    adapter: str | None = None
    """Name of a loaded adapter; None is the base model."""
    max_new_tokens: int = 256
    sampling: SamplingParams = field(default_factory=SamplingParams)


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What the model wrote, and what it took."""

    text: str
    tokens_input: int
    tokens_output: int
    """The end mark included, where the model wrote one."""
    processing_ms: float
    """From the start of the batch to this row's last token."""


Outcome = Generation | EngineError
OnDone = Callable[[int, Outcome], None]


class Engine(Protocol):
    """What the replicas need of an engine."""

    @property
    def adapters(self) -> frozenset[str]:
        """Names of the loaded adapters."""
        ...

    def load(self, name: str, folder: Path) -> None:
        """Load an adapter. Raises `AdapterError` where it does not fit."""
        ...

    def unload(self, name: str) -> None:
        """Let go of an adapter."""
        ...

    def generate(self, requests: Sequence[EngineRequest], on_done: OnDone) -> None:
        """Answer all requests; `on_done(index, outcome)` is called for each as it ends."""
        ...


class TorchEngine:
    """Static batches on transformers' forward pass with a key-value cache."""

    def __init__(
        self,
        base: str,
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        rng: random.Random | None = None,
    ) -> None:
        """`base` is whatever `from_pretrained` takes; `rng` seeds the unseeded requests."""
        self._tokenizer = AutoTokenizer.from_pretrained(base)
        model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, use_safetensors=True)
        self._model = model.to(device).eval().requires_grad_(False)
        self._device = torch.device(device)
        self._rng = rng or random.Random()
        self._lora = StackedLora(self._model)
        self._context: int = self._model.config.max_position_embeddings
        self._ends = _end_tokens(self._model, self._tokenizer)
        self._special = tuple(self._tokenizer.all_special_tokens)

    @property
    def adapters(self) -> frozenset[str]:
        """Names of the loaded adapters."""
        return self._lora.names

    def load(self, name: str, folder: Path) -> None:
        """Load an adapter. Raises `AdapterError` where it does not fit."""
        self._lora.load(name, folder)

    def unload(self, name: str) -> None:
        """Let go of an adapter; a running batch still finishes with it."""
        self._lora.unload(name)

    @torch.inference_mode()
    def generate(self, requests: Sequence[EngineRequest], on_done: OnDone) -> None:
        """Answer all requests; `on_done(index, outcome)` is called for each as it ends."""
        started = time.perf_counter()
        loaded = self._lora.names
        rows: list[_Row] = []
        for index, request in enumerate(requests):
            try:
                rows.append(self._row(index, request, loaded))
            except EngineError as error:
                on_done(index, error)
        if rows:
            with self._lora.applied([row.request.adapter for row in rows]):
                self._decode(rows, on_done, started)

    def _row(self, index: int, request: EngineRequest, loaded: frozenset[str]) -> _Row:
        if request.adapter is not None and request.adapter not in loaded:
            raise NotLoadedError(f"adapter {request.adapter} is not loaded")
        tokens = self._encode(request.messages)
        room = self._context - len(tokens)
        if room < 1:
            raise PromptTooLongError(
                f"the prompt has {len(tokens)} tokens, the model takes {self._context - 1}"
            )
        return _Row(index, request, tokens, limit=min(request.max_new_tokens, room))

    def _encode(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """The chat's token ids. Text that spells a control token is not taken for one."""
        cleaned = [
            {**message, "content": _without(str(message["content"]), self._special)}
            for message in messages
        ]
        text = self._tokenizer.apply_chat_template(
            cleaned, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _decode(self, rows: list[_Row], on_done: OnDone, started: float) -> None:
        tokens, mask = self._pad(rows)
        positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)
        sampler = Sampler(
            [row.request.sampling for row in rows], rng=self._rng, device=self._device
        )
        cache = DynamicCache(config=self._model.config)
        unpadded = bool(mask.all())
        while True:
            logits = self._model(
                input_ids=tokens,
                attention_mask=None if unpadded else mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            chosen = sampler.sample(logits)
            sane = torch.isfinite(logits).all(dim=-1).tolist()
            kept = [
                place
                for place, (row, token) in enumerate(zip(rows, chosen.tolist(), strict=True))
                if not self._advance(row, token, sane[place], on_done, started)
            ]
            if not kept:
                return
            tokens, positions = chosen[:, None], positions[:, -1:] + 1
            if len(kept) < len(rows):
                index = torch.tensor(kept, device=self._device)
                rows = [rows[place] for place in kept]
                tokens, positions, mask = tokens[index], positions[index], mask[index]
                cache.batch_select_indices(index)
                sampler.keep(kept)
                self._lora.keep(kept)
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)

    def _advance(self, row: _Row, token: int, sane: bool, on_done: OnDone, started: float) -> bool:
        """Add a token to a row; whether that ended it."""
        if not sane:
            on_done(row.index, EngineError("the model's output is not a number"))
            return True
        row.written.append(token)
        if token not in self._ends and len(row.written) < row.limit:
            return False
        text = str(self._tokenizer.decode(row.written, skip_special_tokens=True))
        on_done(
            row.index,
            Generation(
                text=text,
                tokens_input=len(row.prompt),
                tokens_output=len(row.written),
                processing_ms=(time.perf_counter() - started) * 1000,
            ),
        )
        return True

    def _pad(self, rows: Sequence[_Row]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and mask [rows, longest], padded on the left."""
        longest = max(len(row.prompt) for row in rows)
        tokens = torch.zeros((len(rows), longest), dtype=torch.long)
        mask = torch.zeros((len(rows), longest), dtype=torch.long)
        for place, row in enumerate(rows):
            tokens[place, longest - len(row.prompt) :] = torch.tensor(row.prompt)
            mask[place, longest - len(row.prompt) :] = 1
        return tokens.to(self._device), mask.to(self._device)


@dataclass
class _Row:
    index: int
    request: EngineRequest
    prompt: list[int]
    limit: int
    written: list[int] = field(default_factory=list)


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    configured = model.generation_config.eos_token_id
    ends = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in [*ends, tokenizer.eos_token_id] if token is not None)


def _without(text: str, special: Sequence[str]) -> str:
    """`text` without control tokens, also those that taking one out would form."""
    while any(token in text for token in special):
        for token in special:
            text = text.replace(token, "")
    return text
