"""What a batch's loss is: SFT, DPO, KTO, or SFT and DPO together.

| objective | learns from | from |
|---|---|---|
| sft | accepted and corrected answers | the mean over learned tokens |
| dpo | pairs: the correction over what it corrects | Rafailov et al. 2023 (arXiv:2305.18290) |
| kto | thumbs up and down, unpaired | Ethayarajh et al. 2024 (arXiv:2402.01306) |
| mixed | sft on all that was accepted, plus dpo on the pairs | RPO, Pang et al. 2024 (arXiv:2404.19733) |

A loss is a sum over examples, divided by what the whole global batch holds, so that
micro-batches and workers add up to the same. The reference model is the adapter as the
run found it: the parent's, or none.
"""  # noqa: E501  # a table's rows cannot be broken

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from training.encoding import Encoded
from training.errors import DataError
from training.losses import passes, token_losses
from training.packing import collate
from training.schedule import ObjectiveName, ObjectiveSettings


@dataclass(frozen=True, kw_only=True)
class Whole:
    """What micro-batches must know of their global batch; the same on every worker."""

    tokens: float
    """Σ weight · learned tokens of the answers that SFT learns."""
    pairs: float
    """Σ weight of the pairs."""
    examples: float
    """Σ weight of all."""
    divergence: float = 0.0
    """KTO's reference point: the mean log-ratio of mismatched answers, at least 0."""

    @classmethod
    def of(cls, batch: Sequence[Encoded], *, divergence: float = 0.0) -> Whole:
        """The sums over `batch`."""
        return cls(
            tokens=sum(example.weighted_tokens for example in batch),
            pairs=sum(example.weight for example in batch if example.rejected is not None),
            examples=sum(example.weight for example in batch),
            divergence=divergence,
        )


Add = Callable[[Tensor], None]
"""Replaces a tensor on every worker by the sum over all of them."""


class Objective:
    """One run's loss. `initial` are the adapter's weights as the run found them."""

    def __init__(
        self, settings: ObjectiveSettings, *, device: torch.device, tokens_per_pass: int
    ) -> None:
        self.settings = settings
        self._device = device
        self._budget = tokens_per_pass
        self._initial: list[Tensor] = []

    def prepare(self, model: nn.Module, dataset: Sequence[Encoded]) -> list[Encoded]:
        """What of `dataset` this objective learns from, with the reference's log-likelihoods.

        `model` still has the adapter that the run starts from. DataError where nothing is
        left to learn.
        """
        chosen = learnable(dataset, self.settings.name)
        if self.settings.name == "sft":
            return chosen
        self._initial = [p.detach().clone() for p in _trained(model)]
        sequences = [part for example in chosen for part in _sequences(example, "dpo")]
        found = iter(self.log_likelihoods(model, sequences).tolist())
        return [
            replace(
                example,
                reference=next(found),
                rejected=example.rejected and replace(example.rejected, reference=next(found)),
            )
            for example in chosen
        ]

    def whole(
        self, model: nn.Module, batch: Sequence[Encoded], mine: Sequence[int], add: Add
    ) -> Whole:
        """The facts of a global batch; `mine` are the places in it that this worker looks at."""
        if self.settings.name != "kto":
            return Whole.of(batch)
        # Place -1 is the last: each prompt gets the answer of the example before it.
        mismatched = [_mismatched(batch[place], batch[place - 1]) for place in mine]
        total = torch.zeros(1, device=self._device)
        if mismatched:
            policy = self.log_likelihoods(model, mismatched)
            with self._reference(model):
                total += (policy - self.log_likelihoods(model, mismatched)).sum()
        add(total)
        return Whole.of(batch, divergence=max(0.0, float(total) / len(batch)))

    def loss(self, model: nn.Module, part: Sequence[Encoded], whole: Whole) -> Tensor:
        """The share of `part` in the global batch's loss, a scalar with a gradient."""
        groups = [_sequences(example, self.settings.name) for example in part]
        pack = collate([sequence for group in groups for sequence in group], device=self._device)
        losses = token_losses(model, pack)
        nll = losses.new_zeros(pack.num_sequences).index_add(0, pack.owners, losses)
        ends = np.cumsum([len(group) for group in groups])
        firsts = [int(end) - len(group) for end, group in zip(ends, groups, strict=True)]
        match self.settings.name:
            case "sft":
                return self._sft(nll, part, firsts, whole)
            case "kto":
                return self._kto(nll, part, firsts, whole)
            case "dpo":
                return self._dpo(nll, part, firsts, whole)
            case "mixed":
                preferences = self._dpo(nll, part, firsts, whole)
                return (
                    self._sft(nll, part, firsts, whole)
                    + self.settings.preference_weight * preferences
                )

    def _sft(
        self, nll: Tensor, part: Sequence[Encoded], firsts: Sequence[int], whole: Whole
    ) -> Tensor:
        weights = self._row([example.weight / whole.tokens for example in part])
        return (nll[firsts] * weights).sum()

    def _kto(
        self, nll: Tensor, part: Sequence[Encoded], firsts: Sequence[int], whole: Whole
    ) -> Tensor:
        ratios = -nll[firsts] - self._row([example.reference for example in part])
        signs = self._row([-1.0 if example.label is False else 1.0 for example in part])
        weights = self._row([example.weight / whole.examples for example in part])
        losses = kto_losses(ratios, whole.divergence, signs=signs, beta=self.settings.beta)
        return (losses * weights).sum()

    def _dpo(
        self, nll: Tensor, part: Sequence[Encoded], firsts: Sequence[int], whole: Whole
    ) -> Tensor:
        """Of the pairs alone: the rejected answer stands right after the chosen one."""
        pairs = [
            (example, example.rejected, first)
            for example, first in zip(part, firsts, strict=True)
            if example.rejected is not None
        ]
        if not pairs:
            return nll.sum() * 0.0
        places = torch.tensor([first for _, _, first in pairs], device=self._device)
        chosen = -nll[places] - self._row([example.reference for example, _, _ in pairs])
        rejected = -nll[places + 1] - self._row([other.reference for _, other, _ in pairs])
        weights = self._row([example.weight / whole.pairs for example, _, _ in pairs])
        return (dpo_losses(chosen, rejected, beta=self.settings.beta) * weights).sum()

    def _row(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self._device)

    def log_likelihoods(self, model: nn.Module, sequences: Sequence[Encoded]) -> Tensor:
        """(len(sequences),) nats, of each sequence's learned part; dropout off."""
        found = torch.zeros(len(sequences), device=self._device)
        training = model.training
        model.eval()
        with torch.no_grad():
            for chosen in passes(model, [(len(s.input_ids),) for s in sequences], self._budget):
                pack = collate([sequences[index] for index in chosen], device=self._device)
                owners = torch.tensor(chosen, device=self._device)[pack.owners]
                found.index_add_(0, owners, -token_losses(model, pack))
        model.train(training)
        return found

    @contextmanager
    def _reference(self, model: nn.Module) -> Iterator[None]:
        """`model` with the adapter that the run started from."""
        parameters = _trained(model)
        current = [p.detach().clone() for p in parameters]
        _put(self._initial, parameters)
        try:
            yield
        finally:
            _put(current, parameters)


def dpo_losses(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """(n,) −log σ(β(chosen − rejected)) of log-ratios to the reference, in nats; eq. 7."""
    return -functional.logsigmoid(beta * (chosen - rejected))


def kto_losses(ratios: Tensor, divergence: float, *, signs: Tensor, beta: float) -> Tensor:
    """(n,) 1 − σ(±β(ratio − divergence)) of log-ratios to the reference; eq. 8, both λ = 1.

    `signs` is 1 for a desirable answer, −1 for another.
    """
    return 1 - torch.sigmoid(signs * beta * (ratios - divergence))


def learnable(dataset: Sequence[Encoded], name: ObjectiveName) -> list[Encoded]:
    """The examples that objective `name` has a use for, in its form; DataError for none."""
    if name == "kto":
        chosen = [part for example in dataset for part in _apart(example)]
    elif name == "dpo":
        chosen = [example for example in dataset if example.rejected is not None]
    else:
        chosen = [example for example in dataset if example.label is not False]
    if not chosen:
        needed = "pairs of a chosen and a rejected answer" if name == "dpo" else "accepted answers"
        raise DataError(
            f"Objective {name!r} learns from {needed}, and none of the {len(dataset)} examples "
            "is one."
        )
    return chosen


def _apart(example: Encoded) -> list[Encoded]:
    """A pair as two labelled answers; whatever bears no label was accepted."""
    if example.rejected is None:
        return [example]
    return [
        replace(example, rejected=None, label=True),
        replace(example.rejected, weight=example.weight, label=False),
    ]


def _sequences(example: Encoded, name: ObjectiveName) -> list[Encoded]:
    if example.rejected is None or name == "sft":
        return [example]
    return [example, example.rejected]


def _mismatched(asked: Encoded, answered: Encoded) -> Encoded:
    """The prompt of one example with the answer of another."""
    prompt = asked.input_ids[: len(asked.input_ids) - asked.num_learned]
    answer = answered.input_ids[len(answered.input_ids) - answered.num_learned :]
    return Encoded(input_ids=np.concatenate([prompt, answer]), num_learned=len(answer))


def _trained(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _put(values: Sequence[Tensor], parameters: Sequence[nn.Parameter]) -> None:
    with torch.no_grad():
        for value, parameter in zip(values, parameters, strict=True):
            parameter.copy_(value)
