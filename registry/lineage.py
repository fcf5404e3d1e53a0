"""Lineage: from curated samples to datasets to versions, and back."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, insert
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

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
    return session.exec(_learned_from(session, version)).all()


def count_interactions_of(session: Session, version: str) -> int:
    """How many interactions a version learned from, its parents' included."""
    learned = _learned_from(session, version).subquery()
    return session.exec(select(func.count()).select_from(learned)).one()


def interactions_in(
    session: Session, dataset_id: str, *, limit: int, after: str | None = None
) -> Sequence[tuple[str, str, str]]:
    """A page of a dataset: sample, its interaction and its split, in the order of samples.

    `after`: the last sample of the page before.
    """
    query = (
        select(DatasetItem.training_data_id, TrainingData.source_interaction_id, DatasetItem.split)
        .join(TrainingData, col(TrainingData.id) == col(DatasetItem.training_data_id))
        .where(DatasetItem.dataset_id == dataset_id)
        .order_by(col(DatasetItem.training_data_id))
        .limit(limit)
    )
    if after is not None:
        query = query.where(col(DatasetItem.training_data_id) > after)
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
    return sorted({*direct, *descendants_of(session, direct)})


def descendants_of(session: Session, versions: Sequence[str]) -> list[str]:
    """The versions that went on from any of `versions`, and from those, by name."""
    found: set[str] = set()
    frontier = set(versions)
    while frontier:
        children = session.exec(
            select(ModelVersion.version).where(col(ModelVersion.parent_version).in_(list(frontier)))
        ).all()
        frontier = set(children) - found - set(versions)
        found |= frontier
    return sorted(found)


def _learned_from(session: Session, version: str) -> SelectOfScalar[str]:
    return (
        select(TrainingData.source_interaction_id)
        .join(DatasetItem, col(DatasetItem.training_data_id) == col(TrainingData.id))
        .join(
            ModelVersion,
            col(ModelVersion.training_dataset_id) == col(DatasetItem.dataset_id),
        )
        .where(col(ModelVersion.version).in_(_with_parents(session, version)))
        .distinct()
    )


def _with_parents(session: Session, version: str) -> list[str]:
    found: list[str] = []
    current: str | None = version
    while current is not None and current not in found:
        found.append(current)
        current = session.exec(
            select(ModelVersion.parent_version).where(ModelVersion.version == current)
        ).first()
    return found
