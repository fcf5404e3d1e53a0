"""LoRA adapters on one shared base: a batch may mix rows of different adapters and of none.

The A matrices of a batch's adapters are concatenated, and so are the Bs; a mask per token
keeps each to its own adapter. Adapters are named by their digest and never change.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from serving.errors import AdapterError, NotLoadedError

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
MAX_PLANS = 8

_KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<matrix>[AB])(?:\.default)?\.weight")


@dataclass(frozen=True, eq=False)
class Adapter:
    """Per module: A [rank, in] and B [out, rank], the scaling already in B."""

    layers: dict[str, tuple[torch.Tensor, torch.Tensor]]


Owners = tuple[int, ...]
"""Which adapter of a set owns each rank of a stacked matrix."""


@dataclass(frozen=True)
class _Plan:
    """The matrices of one set of adapters, stacked per module."""

    layers: dict[str, tuple[torch.Tensor, torch.Tensor, Owners]]
    """Module → A^T [in, ranks], B^T [ranks, out] and the ranks' owners."""
    owners: dict[Owners, torch.Tensor]
    """The same as tensors [ranks]."""


@dataclass(frozen=True)
class _Applied:
    """A plan, and which tokens of the running pass are not whose."""

    plan: _Plan
    foreign: dict[Owners, torch.Tensor]
    """[tokens, ranks]: true where a rank is not the token's. Empty: all tokens own all ranks."""
    foreign_late: dict[Owners, torch.Tensor]
    """The same for the tokens whose logits are wanted."""


class StackedLora:
    """The adapters that a model holds, and what applies them in its linear layers."""

    def __init__(self, model: nn.Module, *, late: nn.Module | None = None) -> None:
        """`late`: what, beside the head, sees only the tokens whose logits are wanted."""
        self._modules = {
            name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)
        }
        if not self._modules:
            raise AdapterError("the base model has no linear layer that an adapter could change")
        self._device = next(iter(self._modules.values())).weight.device
        self._adapters: dict[str, Adapter] = {}
        self._plans: dict[tuple[Adapter, ...], _Plan] = {}
        self._applied: _Applied | None = None
        outputs: Any = model
        last = {outputs.get_output_embeddings(), *(late.modules() if late else ())}
        for name, module in self._modules.items():
            # In place of a hook, which costs a small layer as much as its product.
            forward = self._forward(name, module.forward, is_late=module in last)
            module.forward = forward  # type: ignore[method-assign, assignment]

    @property
    def names(self) -> frozenset[str]:
        """The adapters that are loaded."""
        return frozenset(self._adapters)

    def load(self, name: str, folder: Path) -> None:
        """Hold the adapter in `folder`. Raises `AdapterError` where it does not fit the base."""
        adapter = read_adapter(folder)
        for module, (a, b) in adapter.layers.items():
            self._check(module, a, b)
        dtype = next(iter(self._modules.values())).weight.dtype
        placed = {
            module: (a.to(self._device, dtype), b.to(self._device, dtype))
            for module, (a, b) in adapter.layers.items()
        }
        # Replaced, not changed: another thread may be reading it.
        self._adapters = {**self._adapters, name: Adapter(placed)}

    def unload(self, name: str) -> None:
        """Let go of an adapter; whoever has got it goes on with it."""
        self._adapters = {key: value for key, value in self._adapters.items() if key != name}

    def get(self, name: str) -> Adapter:
        """A loaded adapter. Raises `NotLoadedError`."""
        try:
            return self._adapters[name]
        except KeyError as error:
            raise NotLoadedError(f"adapter {name} is not loaded") from error

    @contextmanager
    def applied(
        self, rows: Sequence[tuple[Adapter | None, int]], wanted: Sequence[int]
    ) -> Iterator[None]:
        """Run the block with these adapters; None is the base alone.

        `rows`: the adapters of the pass's tokens, each with how many tokens in turn it applies
        to. `wanted`: places of the tokens whose logits are computed.
        """
        used = tuple(sorted({adapter for adapter, _ in rows if adapter is not None}, key=id))
        if used:
            plan = self._plan_of(used)
            owner = [
                used.index(adapter) if adapter is not None else -1
                for adapter, count in rows
                for _ in range(count)
            ]
            self._applied = _Applied(plan, {}, {})
            if len(used) > 1 or -1 in owner:
                tokens = torch.tensor(owner, device=self._device)[:, None]
                foreign = {key: tokens != ranks for key, ranks in plan.owners.items()}
                places = torch.tensor(wanted, device=self._device, dtype=torch.long)
                late = {key: mask[places] for key, mask in foreign.items()}
                self._applied = _Applied(plan, foreign, late)
        try:
            yield
        finally:
            self._applied = None

    def _plan_of(self, used: tuple[Adapter, ...]) -> _Plan:
        plan = self._plans.get(used)
        if plan is None:
            plan = _stack(used)
            loaded = set(self._adapters.values())
            others = [(key, old) for key, old in self._plans.items() if loaded.issuperset(key)]
            self._plans = {**dict(others[-(MAX_PLANS - 1) :]), used: plan}
        return plan

    def _forward(
        self, name: str, plain: Callable[[torch.Tensor], torch.Tensor], *, is_late: bool
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """A linear layer's computation, and what the applied adapters add to it."""

        def forward(hidden: torch.Tensor) -> torch.Tensor:
            output = plain(hidden)
            applied = self._applied
            if applied is None or name not in applied.plan.layers:
                return output
            a, b, owners = applied.plan.layers[name]
            low = hidden.flatten(0, -2) @ a
            foreign = applied.foreign_late if is_late else applied.foreign
            if foreign:
                # Filled, not multiplied: infinity in one row's activations stays its own.
                low.masked_fill_(foreign[owners], 0.0)
            # In place: the layer has just made its output, and nobody else has seen it.
            output.view(-1, output.shape[-1]).addmm_(low, b)
            return output

        return forward

    def _check(self, module: str, a: torch.Tensor, b: torch.Tensor) -> None:
        if module not in self._modules:
            raise AdapterError(f"the base model has no linear layer '{module}'")
        out_features, in_features = self._modules[module].weight.shape
        if a.shape[1] != in_features or b.shape[0] != out_features or a.shape[0] != b.shape[1]:
            raise AdapterError(
                f"'{module}' is {out_features}x{in_features} in the base model, the adapter's "
                f"matrices are {tuple(b.shape)} and {tuple(a.shape)}"
            )


def read_adapter(folder: Path) -> Adapter:
    """A PEFT LoRA folder, from safetensors alone. Raises `AdapterError`."""
    try:
        config = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
        weights = load_file(folder / WEIGHTS_NAME)
    except (OSError, ValueError, SafetensorError) as error:
        raise AdapterError(f"cannot read the adapter: {error}") from error
    _refuse_unknown(config)
    matrices: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in weights.items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise AdapterError(f"'{key}' is no LoRA matrix")
        if not torch.isfinite(tensor).all():
            raise AdapterError(f"'{key}' holds values that are not finite numbers")
        matrices.setdefault(match["module"], {})[match["matrix"]] = tensor
    if not matrices:
        raise AdapterError("the adapter holds no matrices")
    layers = {}
    for module, pair in matrices.items():
        if len(pair) != 2:
            raise AdapterError(f"'{module}' lacks one of its two matrices")
        a, b = pair["A"], pair["B"]
        layers[module] = (a, b * _scaling(config, a.shape[0]))
    return Adapter(layers)


def _refuse_unknown(config: Any) -> None:
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise AdapterError("only LoRA adapters are served")
    for option in ("use_dora", "modules_to_save", "alpha_pattern", "fan_in_fan_out", "lora_bias"):
        if config.get(option):
            raise AdapterError(f"the adapter uses '{option}', which is not served")
    if config.get("bias", "none") != "none":
        raise AdapterError("the adapter trains biases, which are not served")


def _scaling(config: dict[str, Any], rank: int) -> float:
    alpha = float(config["lora_alpha"])
    return float(alpha / rank**0.5 if config.get("use_rslora") else alpha / rank)


def _stack(adapters: Sequence[Adapter]) -> _Plan:
    layers = {}
    owners: dict[Owners, torch.Tensor] = {}
    for module in dict.fromkeys(name for adapter in adapters for name in adapter.layers):
        found = [
            (index, *adapter.layers[module])
            for index, adapter in enumerate(adapters)
            if module in adapter.layers
        ]
        a = torch.cat([a for _, a, _ in found])
        b = torch.cat([b for _, _, b in found], dim=1)
        owned = tuple(index for index, a, _ in found for _ in range(a.shape[0]))
        layers[module] = (a.T.contiguous(), b.T.contiguous(), owned)
        owners[owned] = torch.tensor(owned, device=a.device)
    return _Plan(layers, owners)
