"""A/A: the champion on trial against itself, to see whether the whole pipeline finds nothing.

The challenger is a copy: another version of the same adapter. It can be retired or rolled back
like any other, and never be promoted.
"""

from sqlmodel import Session

from registry import deployment, experiments, versions
from registry.deployment import Act
from registry.errors import ConflictError
from registry.models import Experiment
from registry.settings_decisions import ExperimentSettings


def begin(session: Session, act: Act, *, workload: str, settings: ExperimentSettings) -> Experiment:
    """Put a copy of the champion on trial, at the first share of the plan that people see.

    Raises `ConflictError` where the base model serves, or a trial is running.
    """
    champion = deployment.lock(session, workload).champion
    if champion is None:
        raise ConflictError(
            f"workload '{workload}' is served by the base model: only a version that was trained "
            "can be tried against itself"
        )
    original = versions.get(session, champion)
    copy = versions.register(
        session,
        version=f"{champion}-again",
        workload=workload,
        base_model=original.base_model,
        adapter_digest=original.adapter_digest,
        recipe=original.recipe,
        now=act.now,
        objective=original.objective,
        parent_version=original.parent_version,
        training_dataset_id=original.training_dataset_id,
    )
    return experiments.start(
        session,
        act,
        workload=workload,
        challenger=copy.version,
        share=next(step.share for step in settings.steps if step.share > 0),
        settings=settings.model_dump(mode="json"),
        kind=experiments.ITSELF,
    )
