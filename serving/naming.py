"""Model names: `kalimtak`, `prompts:champion`, a version → the workload and the version asked for.

kalimtak              the default workload: whoever its desired state sends
kalimtak:champion     its champion; likewise :challenger, :VERSION and :BASE MODEL
prompts, prompts:…    another workload
VERSION               a live version, in the workload that it belongs to
BASE MODEL            the base model, in the default workload
"""

from collections.abc import Mapping
from dataclasses import dataclass

from registry.deployment import DesiredState
from registry.models import DEFAULT_WORKLOAD
from registry.workloads import PRODUCT

CHAMPION, CHALLENGER = "champion", "challenger"


@dataclass(frozen=True)
class Target:
    """A workload, and the version of it that is asked for; None: whoever is sent."""

    workload: str
    version: str | None = None


def resolve(model: str, states: Mapping[str, DesiredState], *, base_model: str) -> Target | None:
    """What a model name stands for; None where it stands for nothing.

    Whether a workload serves the version at present is for the route to say.
    """
    if model == base_model:
        return Target(DEFAULT_WORKLOAD, base_model)
    for workload, state in states.items():
        if any(live.version == model for live in state.live):
            return Target(workload, model)
    name, _, version = model.partition(":")
    workload = DEFAULT_WORKLOAD if name == PRODUCT else name
    if workload not in states or model.endswith(":"):
        return None
    return Target(workload, version or None)


def public_name(workload: str) -> str:
    """How clients call a workload."""
    return PRODUCT if workload == DEFAULT_WORKLOAD else workload


def names(states: Mapping[str, DesiredState], *, base_model: str) -> list[str]:
    """Every name that can be asked for, workload by workload, the base model last."""
    found: list[str] = []
    for workload in sorted(states, key=public_name):
        state, name = states[workload], public_name(workload)
        found += [name, f"{name}:{CHAMPION}"]
        found += [f"{name}:{CHALLENGER}"] if state.challenger else []
        found += [live.version for live in state.live]
    return [*found, base_model]
