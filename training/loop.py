"""The training loop: draws, accumulates, adds up over workers, clips, steps, reports.

Plain torch. What a step computes is a function of the settings, the dataset, the
adapter and the optimizer alone: batches and dropout are derived from seed and step, so
that a run resumes exactly from adapter, optimizer and step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from training.encoding import Encoded, judged_by
from training.errors import DivergedError
from training.losses import passes
from training.objectives import Objective
from training.packing import deal
from training.parallel import Collective, add_gradients
from training.sampler import Sampler
from training.schedule import LoopSettings, learning_rate_at
from training.validation import Validation

_WINDOW_STEPS = 8
_DIVERGED_FACTOR = 2.0
_DIVERGED_NATS = 1.0


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """What one step did."""

    step: int
    """Steps done so far, this one included."""
    num_steps: int
    loss: float
    """Mean over the global batch's learned tokens, in nats, before the step."""
    grad_norm: float
    """Before clipping."""
    learning_rate: float
    num_tokens: int
    """Learned tokens of the global batch."""
    seconds: float


class TrainingLoop:
    """One worker's part of a run. Every worker holds the whole dataset and draws alike."""

    def __init__(
        self,
        *,
        model: nn.Module,
        dataset: Sequence[Encoded],
        settings: LoopSettings,
        collective: Collective,
        objective: Objective,
    ) -> None:
        """`model` still has the adapter that the run starts from, even if it then resumes.

        DataError where `dataset` holds nothing that `objective` learns from.
        """
        self.model = model
        self.settings = settings
        self.step = 0
        """Steps done."""
        self.losses: list[float] = []
        """The loss of each step done."""
        self.num_tokens = 0
        """Learned tokens seen, by all workers together."""
        self._objective = objective
        self._dataset = objective.prepare(model, dataset)
        self._collective = collective
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._parameters,
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self._sampler = Sampler(
            [example.target_tool for example in self._dataset],
            global_batch=settings.global_batch,
            seed=settings.seed,
            balance=settings.balance_by_tool,
        )

    def share(self) -> None:
        """Gives every worker the adapter of rank 0; all of them must call it."""
        self._collective.share(self._parameters)

    def run(self, on_step: Callable[[StepReport], None]) -> None:
        """Does the steps that are left; DivergedError when the loss gets lost."""
        self.model.train()
        while self.step < self.settings.num_steps:
            on_step(self._do_step())

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs besides the adapter's weights."""
        return {
            "step": self.step,
            "losses": list(self.losses),
            "num_tokens": self.num_tokens,
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where `state` was taken; the model already has that adapter."""
        self._optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        self.losses = list(state["losses"])
        self.num_tokens = state["num_tokens"]

    def _do_step(self) -> StepReport:
        started = time.perf_counter()
        examples = [self._dataset[index] for index in self._sampler.batch(self.step)]
        learning_rate = learning_rate_at(self.step, self.settings)
        loss = self._accumulate(examples)
        norm = float(nn.utils.clip_grad_norm_(self._parameters, self.settings.max_grad_norm))
        self._refuse_divergence(loss, norm)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        num_tokens = sum(example.num_learned for example in examples)
        self.step += 1
        self.losses.append(loss)
        self.num_tokens += num_tokens
        return StepReport(
            step=self.step,
            num_steps=self.settings.num_steps,
            loss=loss,
            grad_norm=norm,
            learning_rate=learning_rate,
            num_tokens=num_tokens,
            seconds=time.perf_counter() - started,
        )

    def _accumulate(self, examples: Sequence[Encoded]) -> float:
        """Leaves the global batch's gradient on every worker; returns its mean loss."""
        rank, world = self._collective.rank, self._collective.world
        # Dropout differs between steps and workers, yet a resumed run repeats it.
        torch.manual_seed(hash((self.settings.seed, self.step, rank)))
        hands = deal([example.num_tokens for example in examples], world)
        parts = [self._passes(examples, hand) for hand in hands]
        whole = self._objective.whole(self.model, examples, hands[rank], self._collective.add)
        self._optimizer.zero_grad(set_to_none=True)
        total = torch.zeros(1, device=self._parameters[0].device)
        for part in parts[rank]:
            loss = self._objective.loss(self.model, part, whole)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        if self.settings.equal_passes:
            for _ in range(max(map(len, parts)) - len(parts[rank])):
                # To no effect but for the workers that wait for this one's share of the base.
                idle = self._objective.loss(self.model, parts[rank][0], whole) * 0.0
                idle.backward()  # type: ignore[no-untyped-call]
        return float(add_gradients(self._collective, self._parameters, total))

    def _passes(self, examples: Sequence[Encoded], hand: Sequence[int]) -> list[list[Encoded]]:
        """What this worker computes at once, and after it."""
        mine = [examples[index] for index in hand]
        lengths = [example.lengths for example in mine]
        return [
            [mine[place] for place in chosen]
            for chosen in passes(self.model, lengths, self.settings.tokens_per_pass)
        ]

    def _refuse_divergence(self, loss: float, norm: float) -> None:
        """Every worker sees the same sums, so that all of them stop at the same step."""
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise DivergedError(
                f"Step {self.step + 1}: the loss is {loss} and its gradient {norm}. "
                "Lower the learning rate."
            )
        if len(self.losses) < 2 * _WINDOW_STEPS:
            return
        first = sum(self.losses[:_WINDOW_STEPS]) / _WINDOW_STEPS
        last = sum(self.losses[-_WINDOW_STEPS:]) / _WINDOW_STEPS
        if last > _DIVERGED_FACTOR * first + _DIVERGED_NATS:
            raise DivergedError(
                f"Step {self.step + 1}: the loss grew from {first:.2f} to {last:.2f} nats. "
                "Lower the learning rate."
            )


def mean_loss(
    model: nn.Module,
    dataset: Sequence[Encoded],
    *,
    collective: Collective,
    objective: Objective,
) -> float:
    """The mean loss per learned token of the accepted answers of `dataset`, in nats.

    DataError where there is none.
    """
    return validate(model, dataset, collective=collective, objective=objective).loss


def validate(
    model: nn.Module,
    dataset: Sequence[Encoded],
    *,
    collective: Collective,
    objective: Objective,
) -> Validation:
    """The mean loss per learned token of the accepted answers, over all and by target tool.

    DataError where there is none.
    """
    accepted = judged_by(dataset)
    tools = sorted({example.target_tool for example in accepted})
    hands = deal([len(example.input_ids) for example in accepted], collective.world)
    mine = [accepted[index] for index in hands[collective.rank]]
    found = objective.log_likelihoods(model, mine)
    weights = torch.tensor([example.weight for example in mine], device=found.device)
    places = [tools.index(example.target_tool) for example in mine]
    totals = torch.zeros(len(tools), device=found.device)
    totals.index_add_(
        0, torch.tensor(places, dtype=torch.long, device=found.device), found * weights
    )
    collective.add(totals)
    nats = dict(zip(tools, (-totals).tolist(), strict=True))
    tokens = {
        tool: sum(one.weighted_tokens for one in accepted if one.target_tool == tool)
        for tool in tools
    }
    return Validation(
        loss=sum(nats.values()) / sum(tokens.values()),
        by_tool={tool: nats[tool] / tokens[tool] for tool in tools if tool},
    )
