"""What an adapter adds to a base, as pairs of thin matrices, and arithmetic on it.

An update holds, for each layer, B (out × k) and A (k × in) with ΔW = B A. Sums of updates are
exact: their pairs are stacked side by side, which adds up ranks (FLoRA, Wang et al. 2024,
arXiv:2409.05976); averaging B and A apart, as FedAvg would by itself, is not the average of the
products. Ranks come down again by a singular value decomposition, which keeps the nearest
matrix of that rank (Eckart & Young 1936).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.errors import AdapterError
from training.lora import WEIGHTS_NAME, read_adapter_config
from training.transport import CONFIG_NAME

_A, _B = ".lora_A.weight", ".lora_B.weight"
_ZERO = 1e-7
"""Singular values below this share of the largest are rounding of float32 weights."""


@dataclass(frozen=True)
class LowRank:
    """B (out × k) times A (k × in), in float64."""

    b: Tensor
    a: Tensor

    @property
    def rank(self) -> int:
        """k, which the true rank may be below."""
        return self.a.shape[0]

    def squared_norm(self) -> float:
        """The squared Frobenius norm of B A: tr((Bᵀ B)(A Aᵀ))."""
        return float(((self.b.T @ self.b) * (self.a @ self.a.T)).sum().clamp(min=0))

    def decomposed(self) -> tuple[Tensor, Tensor, Tensor]:
        """U, s, Vᵀ of B A, without ever holding B A: by QR of both, then SVD of k × k."""
        left, upper = torch.linalg.qr(self.b)
        right, lower = torch.linalg.qr(self.a.T)
        u, s, vt = torch.linalg.svd(upper @ lower.T)
        return left @ u[:, : len(s)], s, vt[: len(s)] @ right.T


Update = Mapping[str, LowRank]
"""By the layer's name in PEFT's files."""


def read_update(adapter: Path) -> Update:
    """What the adapter in `adapter` adds; AdapterError where it is not plain LoRA."""
    config = read_adapter_config(adapter)
    if config.get("use_rslora") or config.get("use_dora") or config.get("rank_pattern"):
        raise AdapterError(f"{adapter}: only plain LoRA of one rank can be averaged.")
    weights = load_file(adapter / WEIGHTS_NAME)
    layers = sorted(name.removesuffix(_A) for name in weights if name.endswith(_A))
    if len(weights) != 2 * len(layers):
        raise AdapterError(f"{adapter} holds weights that are no LoRA, which cannot be averaged.")
    scale = float(config["lora_alpha"]) / int(config["r"])
    return {
        layer: LowRank(
            weights[layer + _B].to(torch.float64) * scale, weights[layer + _A].to(torch.float64)
        )
        for layer in layers
    }


def write_update(update: Update, adapter: Path, *, like: Path) -> None:
    """Writes a PEFT adapter that adds `update` to the base of the adapter `like`.

    Its rank is the largest of the layers'; lower ones are filled up with zeros.
    """
    adapter.mkdir(parents=True, exist_ok=True)
    rank = max(layer.rank for layer in update.values())
    weights: dict[str, Tensor] = {}
    for name, layer in update.items():
        b = torch.zeros(len(layer.b), rank)
        a = torch.zeros(rank, layer.a.shape[1])
        b[:, : layer.rank], a[: layer.rank] = layer.b, layer.a
        weights |= {name + _B: b, name + _A: a}
    save_file(weights, adapter / WEIGHTS_NAME, metadata={"format": "pt"})
    config = read_adapter_config(like) | {"r": rank, "lora_alpha": rank}
    text = json.dumps(config, indent=2, sort_keys=True)
    (adapter / CONFIG_NAME).write_text(text + "\n", encoding="utf-8")


def weighted_sum(updates: Sequence[Update], weights: Sequence[float]) -> Update:
    """Σ wᵢ ΔWᵢ, exactly; its ranks are the sums of theirs.

    AdapterError where they are not updates of the same layers.
    """
    layers = updates[0].keys()
    if any(update.keys() != layers for update in updates):
        raise AdapterError("Adapters of different layers cannot be averaged.")
    return {
        layer: LowRank(
            torch.cat(
                [w * update[layer].b for update, w in zip(updates, weights, strict=True)], dim=1
            ),
            torch.cat([update[layer].a for update in updates], dim=0),
        )
        for layer in layers
    }


def norm(update: Update) -> float:
    """The Frobenius norm of all layers together."""
    return math.sqrt(sum(layer.squared_norm() for layer in update.values()))


def recompressed(update: Update, *, max_rank: int | None) -> tuple[Update, float]:
    """The nearest update of rank at most `max_rank`, and the share of the squared norm lost.

    None loses nothing but rounding: only directions that hold nothing go.
    """
    kept: dict[str, LowRank] = {}
    lost = whole = 0.0
    for name, layer in update.items():
        u, s, vt = layer.decomposed()
        num = max(1, int((s > _ZERO * s[0]).sum()))
        num = num if max_rank is None else min(num, max_rank)
        root = s[:num].sqrt()
        kept[name] = LowRank(u[:, :num] * root, root[:, None] * vt[:num])
        lost += float((s[num:] ** 2).sum())
        whole += float((s**2).sum())
    return kept, lost / whole if whole else 0.0
