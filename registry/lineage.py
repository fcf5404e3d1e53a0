"""Lineage: from curated samples to datasets to versions, and back."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import insert
from sqlmodel import Session, col, select

from registry.models import Dataset, DatasetItem, ModelVersion, TrainingData


def add_dataset(
    session: Session,
    *,
    dataset_id: str,
    workload: str,
    digest: str,
    items: Sequence[tuple[str, str]],
    settings: dict[str, Any],
    counts: dict[str, Any],
    now: datetime,
) -> Dataset:
    """Register a dataset of `items` (training data id, split); the same content is not added twice.

    Returns the dataset that is stored: an earlier one where its digest is known.
    """
    known = session.exec(
        select(Dataset).where(Dataset.workload == workload, Dataset.digest == digest)
    ).first()
    if known is not None:
        return known
    dataset = Dataset(
        id=dataset_id,
        workload=workload,
        digest=digest,
        num_train=sum(split == "train" for _, split in items),
        num_validation=sum(split == "validation" for _, split in items),
        settings=settings,
        counts=counts,
        created_at=now,
    )
    session.add(dataset)
    session.flush()
    if items:
        session.connection().execute(
            insert(DatasetItem),
            [
                {"dataset_id": dataset_id, "training_data_id": item, "split": split}
                for item, split in items
            ],
        )
    return dataset


def interactions_of(session: Session, version: str) -> Sequence[str]:
    """The interactions that a version learned from, its parents' included."""
    query = (
        select(TrainingData.source_interaction_id)
        .join(DatasetItem, col(DatasetItem.training_data_id) == col(TrainingData.id))
        .join(
            ModelVersion,
            col(ModelVersion.training_dataset_id) == col(DatasetItem.dataset_id),
        )
        .where(col(ModelVersion.version).in_(_with_parents(session, version)))
        .distinct()
    )
    return session.exec(query).all()


def versions_of(session: Session, interaction_id: str) -> Sequence[str]:
    """The versions that learned from an interaction, directly or through a parent."""
    direct = session.exec(
        select(ModelVersion.version)
        .join(
            DatasetItem,
            col(DatasetItem.dataset_id) == col(ModelVersion.training_dataset_id),
        )
        .join(TrainingData, col(TrainingData.id) == col(DatasetItem.training_data_id))
        .where(TrainingData.source_interaction_id == interaction_id)
        .distinct()
    ).all()
    found, frontier = set(direct), set(direct)
    while frontier:
        children = session.exec(
            select(ModelVersion.version).where(col(ModelVersion.parent_version).in_(list(frontier)))
        ).all()
        frontier = set(children) - found
        found |= frontier
    return sorted(found)


def _with_parents(session: Session, version: str) -> list[str]:
    found: list[str] = []
    current: str | None = version
    while current is not None and current not in found:
        found.append(current)
        current = session.exec(
            select(ModelVersion.parent_version).where(ModelVersion.version == current)
        ).first()
    return found
