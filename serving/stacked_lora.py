"""LoRA adapters on one shared base: a batch may mix rows of different adapters and of none.

The A matrices of a batch's adapters are concatenated, and so are the Bs; a mask per row
keeps each row to its own adapter. Adapters are named by their digest and never change.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
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


@dataclass(frozen=True)
class Adapter:
    """Per module: A [rank, in] and B [out, rank], the scaling already in B."""

    layers: dict[str, tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class _Plan:
    """The matrices of one set of adapters, stacked per module."""

    layers: dict[str, tuple[torch.Tensor, torch.Tensor]]
    """Module → A^T [in, ranks] and B^T [ranks, out]."""
    owners: dict[str, torch.Tensor]
    """Module → which adapter of the set owns each rank: [ranks]."""


class StackedLora:
    """The adapters that a model holds, and the hooks that apply them."""

    def __init__(self, model: nn.Module) -> None:
        self._modules = {
            name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)
        }
        self._adapters: dict[str, Adapter] = {}
        self._plans: dict[tuple[str, ...], _Plan] = {}
        self._plan: _Plan | None = None
        self._rows: torch.Tensor | None = None
        for name, module in self._modules.items():
            module.register_forward_hook(self._hook(name))

    @property
    def names(self) -> frozenset[str]:
        """The adapters that are loaded."""
        return frozenset(self._adapters)

    def load(self, name: str, folder: Path) -> None:
        """Hold the adapter in `folder`. Raises `AdapterError` where it does not fit the base."""
        adapter = read_adapter(folder)
        for module, (a, b) in adapter.layers.items():
            self._check(module, a, b)
        weights = next(iter(self._modules.values())).weight
        placed = {
            module: (a.to(weights.device, weights.dtype), b.to(weights.device, weights.dtype))
            for module, (a, b) in adapter.layers.items()
        }
        # Replaced, not changed: a batch that runs in another thread goes on with what it has.
        self._adapters = {**self._adapters, name: Adapter(placed)}

    def unload(self, name: str) -> None:
        """Let go of an adapter; a running batch still finishes with it."""
        self._adapters = {key: value for key, value in self._adapters.items() if key != name}
        self._plans = {key: value for key, value in self._plans.items() if name not in key}

    @contextmanager
    def applied(self, names: Sequence[str | None]) -> Iterator[None]:
        """Run the block with adapter `names[i]` on row i; None is the base alone."""
        used = tuple(sorted({name for name in names if name is not None}))
        if used:
            self._plan = self._plan_of(used)
            self._rows = torch.tensor(
                [used.index(name) if name is not None else -1 for name in names],
                device=next(iter(self._modules.values())).weight.device,
            )
            if len(used) == 1 and None not in names:
                self._rows = None
        try:
            yield
        finally:
            self._plan = self._rows = None

    def keep(self, rows: Sequence[int]) -> None:
        """Inside `applied`: go on with these rows alone."""
        if self._rows is not None:
            self._rows = self._rows[torch.tensor(rows, device=self._rows.device)]

    def _plan_of(self, used: tuple[str, ...]) -> _Plan:
        plan = self._plans.get(used)
        if plan is None:
            try:
                plan = _stack([self._adapters[name] for name in used])
            except KeyError as error:
                raise NotLoadedError(f"adapter {error} is not loaded any more") from error
            recent = dict(list(self._plans.items())[-(MAX_PLANS - 1) :])
            self._plans = {**recent, used: plan}
        return plan

    def _hook(self, name: str) -> Any:
        def apply(_module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> Any:
            plan = self._plan
            if plan is None or name not in plan.layers:
                return None
            a, b = plan.layers[name]
            low = args[0] @ a
            if self._rows is not None:
                mask = self._rows[:, None] == plan.owners[name][None, :]
                # Selected, not multiplied: infinity in one row's activations stays its own.
                low = torch.where(mask[:, None, :], low, 0.0)
            return output + low @ b

        return apply

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
    layers, owners = {}, {}
    for module in dict.fromkeys(name for adapter in adapters for name in adapter.layers):
        found = [
            (index, *adapter.layers[module])
            for index, adapter in enumerate(adapters)
            if module in adapter.layers
        ]
        a = torch.cat([a for _, a, _ in found])
        b = torch.cat([b for _, _, b in found], dim=1)
        layers[module] = (a.T.contiguous(), b.T.contiguous())
        owners[module] = torch.tensor(
            [index for index, a, _ in found for _ in range(a.shape[0])], device=a.device
        )
    return _Plan(layers, owners)
