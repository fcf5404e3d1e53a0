"""A transformers model and its tokenizer, as the engine uses them.

Any decoder that transformers runs through its attention interface will do; a model that
computes something else this way than by itself is refused when it is loaded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jinja2 import TemplateError
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from registry.control_tokens import ControlTokens
from serving.engine.attention import ATTENTION, Attending, Feed, ShapeProbe, Step
from serving.engine.cache import KvCache, LayerShape
from serving.engine.last_layer import end_as_ever, end_early
from serving.engine.packed_weights import pack
from serving.errors import ChatRefusedError, EngineError

_PROBE_TOKENS = 9
_TOLERANCE = {torch.float32: 1e-3}
_LOW_PRECISION_TOLERANCE = 0.1
_UNFIT = (KeyError, TypeError, ValueError, AttributeError)
"""What a model raises that expects something else than it is given."""

logger = logging.getLogger(__name__)


class ChatModel:
    """Text of a chat to tokens, tokens to text, and packed forward passes."""

    def __init__(
        self, base: str, *, device: torch.device, dtype: torch.dtype, model: Any | None = None
    ) -> None:
        """`base` is whatever `from_pretrained` takes; `model`, if given, is used for it.

        Raises `EngineError` where the model cannot be run in packed passes.
        """
        self.device = device
        self._tokenizer: Any = AutoTokenizer.from_pretrained(base)
        if self._tokenizer.chat_template is None:
            raise EngineError(f"{base} has no chat template: it is no model for conversations")
        loaded: Any = model or AutoModelForCausalLM.from_pretrained(
            base, dtype=dtype, use_safetensors=True
        )
        self.module = loaded.to(device).eval().requires_grad_(False)
        self.dtype: torch.dtype = self.module.dtype
        self.context = _context(self.module)
        self.ends = _end_tokens(self.module, self._tokenizer)
        self._control = ControlTokens.of(self._tokenizer)
        self._before = self._tokenizer("a", add_special_tokens=False)["input_ids"]
        self.late: nn.Module | None = None
        """The part that sees no other tokens than those whose logits are wanted."""
        self.shapes = self._check()
        pack(self.module)

    def encode(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """The chat's token ids. Text that spells a control token is not taken for one.

        Raises `ChatRefusedError` where the template says that it takes no such conversation.
        """
        cleaned = [
            {**message, "content": self._control.removed_from(str(message["content"] or ""))}
            for message in messages
        ]
        try:
            text = self._tokenizer.apply_chat_template(
                cleaned, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
        except TemplateError as error:
            # What derives from it is a fault of the template's.
            if type(error) is not TemplateError:
                raise
            raise ChatRefusedError(f"the model's template refuses it: {error}") from error
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, tokens: Sequence[int]) -> str:
        """Text without control tokens."""
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))

    def piece(self, token: int) -> str:
        """A token's text within a text: at the start of one, some tokenizers drop a space."""
        text = self.decode([*self._before, token])
        before = self.decode(self._before)
        return text[len(before) :] if text.startswith(before) else self.decode([token])

    def run(self, step: Step, wanted: Sequence[int]) -> torch.Tensor:
        """Logits [wanted, vocabulary] after the tokens at these places of the pass."""
        places = torch.tensor(wanted, device=self.device, dtype=torch.long)
        return self._pass(step, step.input_ids, step.position_ids, places)

    @contextmanager
    def _plain(self) -> Iterator[None]:
        """With transformers' own attention."""
        self.module.set_attn_implementation("sdpa")
        try:
            yield
        finally:
            self.module.set_attn_implementation(ATTENTION)

    def _pass(
        self, step: Attending, tokens: torch.Tensor, positions: torch.Tensor, places: torch.Tensor
    ) -> torch.Tensor:
        wanted = {"logits_to_keep": places} if self.late is None else {"places": places}
        logits: torch.Tensor = self.module(
            input_ids=tokens, position_ids=positions, use_cache=False, step=step, **wanted
        ).logits
        return logits[0]

    @torch.inference_mode()
    def _check(self) -> list[LayerShape]:
        """What each layer keeps of a token. Raises `EngineError` for models that differ."""
        count = min(_PROBE_TOKENS, self.context - 1)
        tokens = torch.arange(count, device=self.device)[None] % self.module.config.vocab_size
        last = torch.tensor([count - 1], device=self.device)
        probe = ShapeProbe()
        try:
            with self._plain():
                expected = self.module(input_ids=tokens, use_cache=False).logits[0, -1:]
            self._pass(probe, tokens, torch.arange(count, device=self.device)[None], last)
            shapes = [probe.shapes[index] for index in range(len(probe.shapes))]
            difference = self._difference(tokens[0].tolist(), shapes, expected)
        except _UNFIT as error:
            name = type(self.module).__name__
            raise EngineError(f"{name} cannot be run in packed passes: {error!r}") from error
        tolerance = _TOLERANCE.get(self.dtype, _LOW_PRECISION_TOLERANCE)
        # Random weights in low precision differ more than any that were trained.
        if not difference < tolerance:
            raise EngineError(
                f"{type(self.module).__name__} computes something else in packed passes than by "
                f"itself (relative difference {difference:.2g}): it is not served by this engine"
            )
        self._end_early(lambda: self._difference(tokens[0].tolist(), shapes, expected) < tolerance)
        return shapes

    def _end_early(self, agrees: Callable[[], bool]) -> None:
        """Has the last layer compute what is wanted alone, if the logits stay the same."""
        self.late = end_early(self.module)
        if self.late is None:
            return
        try:
            if agrees():
                return
        except (*_UNFIT, RuntimeError) as error:
            logger.info("the last layer computes all tokens: %r", error)
        end_as_ever(self.module)
        self.late = None

    def _difference(
        self, tokens: list[int], shapes: Sequence[LayerShape], expected: torch.Tensor
    ) -> float:
        found = self._in_pieces(tokens, shapes)
        return float((found - expected).float().norm() / expected.float().norm())

    def _in_pieces(self, tokens: list[int], shapes: Sequence[LayerShape]) -> torch.Tensor:
        """The last token's logits, beside another row, from a start, a piece and a token."""
        cache = KvCache(
            shapes,
            budget=4 * len(tokens),
            context=2 * len(tokens),
            max_rows=2,
            device=self.device,
            dtype=self.dtype,
        )
        other, row = cache.take(len(tokens)), cache.take(len(tokens))
        assert other is not None
        assert row is not None
        for start, end in ((0, 3), (3, len(tokens) - 1), (len(tokens) - 1, len(tokens))):
            step = Step([Feed(other, tokens[:2]), Feed(row, tokens[start:end])], self.device)
            last = step.num_tokens - 1 if step.order[-1] == 1 else 0
            logits = self.run(step, [last])
            row.length = end
        return logits


def _context(model: Any) -> int:
    """Tokens that a row may have."""
    context = getattr(model.config, "max_position_embeddings", None)
    if not isinstance(context, int):
        raise EngineError(
            f"{type(model).__name__} says no max_position_embeddings: this engine serves decoders "
            "with attention over a bounded context"
        )
    return min([context, *_first_contexts(model.config)])


def _first_contexts(config: Any) -> Iterator[int]:
    """Of models whose "longrope" turns all positions in another way once any is beyond these.

    transformers decides that for a whole pass, so that one long row would spoil all others.
    """
    parameters = getattr(config, "rope_parameters", None) or {}
    for one in (parameters, *parameters.values()):
        if isinstance(one, Mapping) and one.get("rope_type") == "longrope":
            yield int(one["original_max_position_embeddings"])


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    configured = model.generation_config.eos_token_id
    ends = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in [*ends, tokenizer.eos_token_id] if token is not None)
