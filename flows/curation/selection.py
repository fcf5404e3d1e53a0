"""Which curated samples make up the next dataset: the latest, inside the caps, and a rehearsal.

The rehearsal is a reservoir by domain (bottom-k sampling, Cohen & Kaplan 2007): of the earlier
training samples of each domain, those with the smallest numbers of their own. It needs no state
beside the samples, so that one that is erased or withdrawn is replaced by the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from sqlalchemy import Select, select
from sqlmodel import Session, col

from flows.curation.diversity import capped
from flows.curation.signatures import NUM_PERMUTATIONS, Signatures
from registry.among import among
from registry.models import CuratedSignature, TrainingData, UserInteraction
from registry.privacy import may_be_learned
from registry.settings_curation import CurationSettings

SCHEMA = {
    "id": pl.String,
    "user_id": pl.String,
    "template_id": pl.String,
    "domain": pl.String,
    "language": pl.String,
    "split": pl.String,
    "source": pl.String,
    "quality_score": pl.Float64,
    "reservoir_key": pl.Float64,
    "content_hash": pl.String,
}


@dataclass(frozen=True)
class Selection:
    """The samples of a dataset."""

    fresh: pl.DataFrame
    """With the columns of `SCHEMA`, in the order of `content_hash`."""
    rehearsal: pl.DataFrame
    """Earlier training samples, likewise."""
    disliked: Sequence[str]
    """Ids of disliked training samples, the latest first."""
    left: dict[str, int]
    """Samples after each step of the selection."""


def select_samples(session: Session, settings: CurationSettings, *, workload: str) -> Selection:
    """Choose from all selected samples of `workload`. The same samples give the same choice."""
    diversity = settings.diversity
    pool = _frame(
        session,
        _query(workload)
        .order_by(
            col(TrainingData.created_at).desc(),
            col(TrainingData.reservoir_key),
            col(TrainingData.content_hash),
        )
        .limit(diversity.max_samples),
    )
    fresh, left = capped(pool, diversity, lambda ids: _signatures(session, ids))
    num_train = int((fresh["split"] == "train").sum())
    limit = round(settings.rehearsal_ratio * num_train)
    earlier = _reservoir(session, pool, settings, workload=workload)
    return Selection(
        fresh=fresh.sort("content_hash"),
        rehearsal=earlier.head(limit).sort("content_hash"),
        disliked=_disliked(session, diversity.max_samples, workload=workload),
        left={"the latest": pool.height, **left, "rehearsed": min(limit, earlier.height)},
    )


def _query(workload: str) -> Select[Any]:
    return _chosen(workload).where(col(TrainingData.label).is_(None))


def _chosen(workload: str) -> Select[Any]:
    return (
        select(
            col(TrainingData.id),
            col(UserInteraction.user_id),
            col(TrainingData.template_id),
            col(TrainingData.domain_category),
            col(TrainingData.language),
            col(TrainingData.split),
            col(TrainingData.source),
            col(TrainingData.quality_score),
            col(TrainingData.reservoir_key),
            col(TrainingData.content_hash),
        )
        .join(UserInteraction, col(UserInteraction.id) == col(TrainingData.source_interaction_id))
        .where(
            col(TrainingData.workload) == workload,
            col(TrainingData.is_selected).is_(True),
            # Somebody may have opted out while their samples were being written.
            may_be_learned(),
        )
    )


def _disliked(session: Session, limit: int, *, workload: str) -> Sequence[str]:
    query = (
        _chosen(workload)
        .where(col(TrainingData.label).is_(False), col(TrainingData.split) == "train")
        .order_by(col(TrainingData.created_at).desc(), col(TrainingData.content_hash))
        .limit(limit)
    )
    return _frame(session, query)["id"].to_list()


def _frame(session: Session, query: Select[Any]) -> pl.DataFrame:
    rows = [tuple(row) for row in session.connection().execute(query)]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def _reservoir(
    session: Session, pool: pl.DataFrame, settings: CurationSettings, *, workload: str
) -> pl.DataFrame:
    """Training samples outside of the pool in the order of their numbers, so many per domain."""
    if pool.height < settings.diversity.max_samples:
        return pool.clear()
    domains = session.connection().execute(
        select(col(TrainingData.domain_category))
        .where(col(TrainingData.workload) == workload)
        .distinct()
    )
    wanted = settings.rehearsal_per_domain
    found = [pool.clear()]
    for (domain,) in domains.all():
        query = (
            _query(workload)
            .where(col(TrainingData.domain_category) == domain, col(TrainingData.split) == "train")
            .order_by(col(TrainingData.reservoir_key), col(TrainingData.content_hash))
            .limit(wanted + int((pool["domain"] == domain).sum()))
        )
        of_domain = _frame(session, query)
        found.append(of_domain.join(pool.select("id"), on="id", how="anti").head(wanted))
    return pl.concat(found).sort("reservoir_key", "content_hash")


def _signatures(session: Session, ids: Sequence[str]) -> Signatures:
    """The signatures of samples in their order; zeros for those too short to have one."""
    rows = session.connection().execute(
        select(col(CuratedSignature.training_data_id), col(CuratedSignature.signature)).where(
            among(session, col(CuratedSignature.training_data_id), ids)
        )
    )
    found: dict[str, bytes] = {row[0]: row[1] for row in rows}
    nothing = bytes(NUM_PERMUTATIONS)
    blob = b"".join(found.get(name, nothing) for name in ids)
    return np.frombuffer(blob, np.uint8).reshape(-1, NUM_PERMUTATIONS)
