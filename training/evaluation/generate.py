"""Greedy answers in batches, with a KV cache; rows that have ended leave the batch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Written:
    """One answer."""

    ids: list[int]
    """Its tokens, the end token left out."""
    seconds: float
    """From the start of its batch to its own end: what a caller in such a batch waits for."""


def generate_greedy(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    batch_size: int,
) -> list[Written]:
    """What `model` writes after each prompt.

    Prompts are batched by length, so that little is padded, and answered in their order.
    """
    device = next(model.parameters()).device
    encoded = [tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
    order = sorted(range(len(encoded)), key=lambda index: len(encoded[index]))
    answers: list[Written] = [Written([], 0.0) for _ in encoded]
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = _Batch([encoded[index] for index in chosen], tokenizer, device)
            for index, answer in zip(chosen, batch.answer(model, max_new_tokens), strict=True):
                answers[index] = answer
    return answers


class _Batch:
    """Prompts of one batch, padded on the left."""

    def __init__(
        self,
        prompts: Sequence[list[int]],
        tokenizer: PreTrainedTokenizerBase,
        device: torch.device,
    ) -> None:
        width = max(len(prompt) for prompt in prompts)
        padding = [width - len(prompt) for prompt in prompts]
        self._ids = torch.tensor(
            [
                [tokenizer.pad_token_id] * pad + prompt
                for pad, prompt in zip(padding, prompts, strict=True)
            ],
            device=device,
        )
        self._mask = torch.tensor(
            [[0] * pad + [1] * (width - pad) for pad in padding], device=device
        )
        self._end = tokenizer.eos_token_id

    def answer(self, model: nn.Module, max_new_tokens: int) -> list[Written]:
        started = time.perf_counter()
        answers: list[list[int]] = [[] for _ in range(len(self._ids))]
        ended = [0.0] * len(answers)
        rows = list(range(len(self._ids)))
        cache = DynamicCache()
        ids, mask = self._ids, self._mask
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        for _ in range(max_new_tokens):
            chosen = self._step(model, ids, mask=mask, positions=positions, cache=cache)
            going = []
            for place, token in enumerate(chosen.tolist()):
                ended[rows[place]] = time.perf_counter() - started
                if token != self._end:
                    answers[rows[place]].append(token)
                    going.append(place)
            if not going:
                break
            ids, positions = chosen[:, None], positions[:, -1:] + 1
            mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
            if len(going) < len(rows):
                keep = torch.tensor(going, device=ids.device)
                cache.batch_select_indices(keep)
                ids, mask, positions = ids[keep], mask[keep], positions[keep]
                rows = [rows[place] for place in going]
        return [Written(ids, seconds) for ids, seconds in zip(answers, ended, strict=True)]

    @staticmethod
    def _step(
        model: nn.Module, ids: Tensor, *, mask: Tensor, positions: Tensor, cache: DynamicCache
    ) -> Tensor:
        """(rows,) the likeliest next token of each row."""
        logits: Tensor = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        return logits[:, -1].argmax(-1)
