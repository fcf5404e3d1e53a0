"""Lineage as people look at it: what something came from, and what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import func
from sqlmodel import Session, col, select

from registry import lineage
from registry.errors import NotFoundError
from registry.models import Dataset, DatasetItem, ModelVersion, TrainingData, UserInteraction

Kind = Literal["version", "dataset", "interaction"]


@dataclass(frozen=True)
class DatasetNode:
    """A dataset: what it held when it was made, and how much of it is still there.

    Of `num_samples` that were put in, `num_present` are left, from `num_interactions`; the rest
    was erased since. Both are null where datasets are only named, since counting takes time.
    Rehearsal samples come from no interaction.
    """

    id: str
    digest: str
    created_at: datetime
    num_train: int
    num_validation: int
    num_rehearsal: int
    num_present: int | None
    num_interactions: int | None

    @property
    def num_samples(self) -> int:
        """Curated samples on both sides when it was made."""
        return self.num_train + self.num_validation


@dataclass(frozen=True)
class VersionNode:
    """A version, and the dataset that it was trained on."""

    version: str
    status: str
    base_model: str
    adapter_digest: str
    created_at: datetime
    parent: str | None
    dataset: DatasetNode | None


@dataclass(frozen=True)
class VersionLineage:
    """A version with its parents (nearest first), and the versions that went on from it."""

    line: Sequence[VersionNode]
    descendants: Sequence[str]
    num_interactions: int
    """Different interactions that it learned from, its parents' included."""


@dataclass(frozen=True)
class DatasetLineage:
    """A dataset, the versions trained on it, and those that went on from them."""

    workload: str
    dataset: DatasetNode
    versions: Sequence[str]
    descendants: Sequence[str]


@dataclass(frozen=True)
class SampleNode:
    """What curation made of an interaction, and the datasets that it is in."""

    id: str
    source: str
    split: str
    is_selected: bool
    rejection_reason: str | None
    datasets: Sequence[DatasetNode]


@dataclass(frozen=True)
class InteractionLineage:
    """An interaction, and the versions that learned from it."""

    interaction_id: str
    workload: str
    created_at: datetime
    answered_by: str | None
    samples: Sequence[SampleNode]
    versions: Sequence[str]
    """Trained on a dataset with a sample of it."""
    descendants: Sequence[str]
    """Learned from it through a parent alone."""


def kind_of(session: Session, name: str) -> Kind:
    """What `name` is the name of. Raises `NotFoundError`."""
    if session.get(ModelVersion, name) is not None:
        return "version"
    if session.get(Dataset, name) is not None:
        return "dataset"
    if session.get(UserInteraction, name) is not None:
        return "interaction"
    raise NotFoundError(f"'{name}' is no version, dataset or interaction here")


def of_version(session: Session, version: str) -> VersionLineage:
    """A version's lineage. Raises `NotFoundError`."""
    row = session.get(ModelVersion, version)
    if row is None:
        raise NotFoundError(f"no model version '{version}'")
    line: list[VersionNode] = []
    names: set[str] = set()
    while row is not None and row.version not in names:
        names.add(row.version)
        line.append(_version_node(session, row))
        row = None if row.parent_version is None else session.get(ModelVersion, row.parent_version)
    return VersionLineage(
        line=line,
        descendants=lineage.descendants_of(session, [version]),
        num_interactions=lineage.count_interactions_of(session, version),
    )


def of_dataset(session: Session, dataset_id: str) -> DatasetLineage:
    """A dataset's lineage. Raises `NotFoundError`."""
    dataset = session.get(Dataset, dataset_id)
    if dataset is None:
        raise NotFoundError(f"no dataset '{dataset_id}'")
    trained = _trained_on(session, [dataset_id])
    return DatasetLineage(
        workload=dataset.workload,
        dataset=_dataset_node(session, dataset),
        versions=trained,
        descendants=lineage.descendants_of(session, trained),
    )


def of_interaction(session: Session, interaction_id: str) -> InteractionLineage:
    """An interaction's lineage. Raises `NotFoundError`."""
    row = session.get(UserInteraction, interaction_id)
    if row is None:
        raise NotFoundError(f"no interaction '{interaction_id}'")
    samples = [
        _sample_node(session, sample)
        for sample in session.exec(
            select(TrainingData)
            .where(TrainingData.source_interaction_id == interaction_id)
            .order_by(col(TrainingData.created_at), col(TrainingData.id))
        )
    ]
    trained = _trained_on(session, [node.id for sample in samples for node in sample.datasets])
    return InteractionLineage(
        interaction_id=row.id,
        workload=row.workload,
        created_at=row.created_at,
        answered_by=row.model_version,
        samples=samples,
        versions=trained,
        descendants=lineage.descendants_of(session, trained),
    )


def _trained_on(session: Session, dataset_ids: Sequence[str]) -> list[str]:
    if not dataset_ids:
        return []
    return list(
        session.exec(
            select(ModelVersion.version)
            .where(col(ModelVersion.training_dataset_id).in_(dataset_ids))
            .order_by(col(ModelVersion.created_at), col(ModelVersion.version))
        )
    )


def _version_node(session: Session, row: ModelVersion) -> VersionNode:
    dataset = (
        None if row.training_dataset_id is None else session.get(Dataset, row.training_dataset_id)
    )
    return VersionNode(
        version=row.version,
        status=row.deployment_status,
        base_model=row.base_model,
        adapter_digest=row.adapter_digest,
        created_at=row.created_at,
        parent=row.parent_version,
        dataset=None if dataset is None else _dataset_node(session, dataset),
    )


def _dataset_node(session: Session, dataset: Dataset, *, counted: bool = True) -> DatasetNode:
    num_present, num_interactions = _count(session, dataset.id) if counted else (None, None)
    return DatasetNode(
        id=dataset.id,
        digest=dataset.digest,
        created_at=dataset.created_at,
        num_train=dataset.num_train,
        num_validation=dataset.num_validation,
        num_rehearsal=int(dataset.counts.get("rehearsal", 0)),
        num_present=num_present,
        num_interactions=num_interactions,
    )


def _count(session: Session, dataset_id: str) -> tuple[int, int]:
    return session.exec(
        select(func.count(), func.count(func.distinct(TrainingData.source_interaction_id)))
        .select_from(DatasetItem)
        .join(TrainingData, col(TrainingData.id) == col(DatasetItem.training_data_id))
        .where(DatasetItem.dataset_id == dataset_id)
    ).one()


def _sample_node(session: Session, sample: TrainingData) -> SampleNode:
    datasets = session.exec(
        select(Dataset)
        .join(DatasetItem, col(DatasetItem.dataset_id) == col(Dataset.id))
        .where(DatasetItem.training_data_id == sample.id)
        .order_by(col(Dataset.created_at), col(Dataset.id))
    ).all()
    return SampleNode(
        id=sample.id,
        source=sample.source,
        split=sample.split,
        is_selected=sample.is_selected,
        rejection_reason=sample.rejection_reason,
        datasets=[_dataset_node(session, dataset, counted=False) for dataset in datasets],
    )
