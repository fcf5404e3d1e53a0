"""What curation reads from and writes to `training_data`: a batch at a time, in few statements."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from sqlalchemy import insert, update
from sqlmodel import Session, col, select

from flows.curation.neardup import Sample
from flows.curation.signatures import NUM_PERMUTATIONS, Signatures, sample_text
from flows.curation.splitting import unit_interval
from registry import prompts, texts
from registry.among import among
from registry.crypto import Keyring
from registry.deployment import Act
from registry.interactions import insert_ignoring_duplicates
from registry.models import CuratedSignature, ReviewItem, TrainingData

_PREFIX = prompts.instruction("", target_tool=None, language=None).partition("\n")[0]
SIGNATURE_ROWS = 50_000


def known_contents(session: Session, hashes: Sequence[str], *, workload: str) -> set[str]:
    """Those of the contents that were curated before."""
    query = select(TrainingData.content_hash).where(
        TrainingData.workload == workload, among(session, TrainingData.content_hash, hashes)
    )
    return set(session.exec(query))


def known_sides(session: Session, clusters: Sequence[str], *, workload: str) -> dict[str, str]:
    """The side of each cluster that has one."""
    query = select(TrainingData.cluster_id, TrainingData.split).where(
        TrainingData.workload == workload,
        among(session, TrainingData.cluster_id, sorted(set(clusters))),
    )
    return dict(session.exec(query).all())


def signature_blocks(
    session: Session, *, workload: str
) -> Iterator[tuple[Sequence[str], Signatures]]:
    """The signatures of everything that was curated before, block by block."""
    last = ""
    while True:
        query = (
            select(CuratedSignature.training_data_id, CuratedSignature.signature)
            .where(
                CuratedSignature.workload == workload,
                CuratedSignature.training_data_id > last,
            )
            .order_by(col(CuratedSignature.training_data_id))
            .limit(SIGNATURE_ROWS)
        )
        rows = session.exec(query).all()
        if not rows:
            return
        ids, blobs = zip(*rows, strict=True)
        yield ids, np.frombuffer(b"".join(blobs), np.uint8).reshape(-1, NUM_PERMUTATIONS)
        last = ids[-1]


def samples(
    session: Session,
    keyring: Keyring,
    ids: Sequence[str],
    *,
    fallen: Collection[str],
    standing: Mapping[str, str],
) -> dict[str, Sample]:
    """Those of the samples that count: selected, and stood by.

    Not those of interactions that have `fallen`, or that stand for another content now.
    """
    found = {}
    for row in session.exec(select(TrainingData).where(among(session, TrainingData.id, ids))):
        origin = row.source_interaction_id
        stands = standing.get(origin, row.content_hash) == row.content_hash
        if row.is_selected and stands and origin not in fallen:
            texts.reveal(row, keyring)
            found[row.id] = Sample(row.id, sample_text_of(row), row.source == "corrected")
    return found


def sample_text_of(row: TrainingData) -> str:
    """Request and answer of a stored sample, as `sample_text` has them of a row of a frame."""
    if row.messages is not None:
        return sample_text(json.dumps(row.messages), row.input_prompt, row.target_output)
    request = row.input_prompt.removeprefix(_PREFIX).rpartition("\nTool: ")[0]
    return sample_text(None, request or row.input_prompt, row.target_output)


def review_earlier(session: Session, seen: Sequence[str], standing: Mapping[str, str]) -> int:
    """Unselect samples that their interaction left behind; select those it stands by.

    `standing`: content of each interaction that passes the filters now. How many went out.
    """
    withdrawn = 0
    changed: dict[tuple[bool, str | None], list[str]] = {}
    rows = session.exec(
        select(
            TrainingData.id,
            TrainingData.source_interaction_id,
            TrainingData.content_hash,
            TrainingData.is_selected,
        ).where(among(session, TrainingData.source_interaction_id, seen))
    )
    for sample_id, interaction_id, content, selected in rows:
        stands = standing.get(interaction_id) == content
        if stands != selected:
            reason = None if stands else "feedback changed"
            changed.setdefault((stands, reason), []).append(sample_id)
            withdrawn += not stands
    for (stands, reason), ids in changed.items():
        session.connection().execute(
            update(TrainingData)
            .where(among(session, TrainingData.id, ids))
            .values(is_selected=stands, rejection_reason=reason)
        )
    return withdrawn


def add_samples(session: Session, act: Act, frame: pl.DataFrame, *, workload: str) -> None:
    """Write the samples of a frame and their signatures."""
    ids = [act.new_id() for _ in range(frame.height)]
    rows = [
        {
            "id": sample_id,
            "workload": workload,
            "source_interaction_id": row["id"],
            "input_prompt": _input_prompt(row),
            "target_output": row["target"],
            "messages": json.loads(row["messages"]) if row["messages"] else None,
            "source": row["source"],
            "quality_score": row["quality_score"],
            "domain_category": row["domain"],
            "use_case": row["use_case"],
            "template_id": row["template_id"],
            "reservoir_key": unit_interval(row["content_hash"]),
            "language": row["spoken"],
            "content_hash": row["content_hash"],
            "cluster_id": row["cluster_id"],
            "split": row["split"],
            "is_curated": True,
            "is_selected": True,
            "created_at": act.now,
        }
        for sample_id, row in zip(ids, frame.iter_rows(named=True), strict=True)
    ]
    signatures = [
        {"training_data_id": sample_id, "workload": workload, "signature": signature}
        for sample_id, signature in zip(ids, frame["signature"], strict=True)
        if signature is not None
    ]
    sealed = [texts.seal_row("training_data", row, act.keyring) for row in rows]
    for table, values in ((TrainingData, sealed), (CuratedSignature, signatures)):
        if values:
            session.connection().execute(insert(table), values)


def hold(session: Session, act: Act, held: Mapping[str, str], *, workload: str) -> int:
    """Put interactions (id → reason) into the reviewers' queue, each once; how many are new."""
    known = set(
        session.exec(
            select(ReviewItem.interaction_id).where(
                among(session, ReviewItem.interaction_id, held),
                col(ReviewItem.reason).startswith("moderation:"),
            )
        )
    )
    rows = [
        {
            "id": act.new_id(),
            "workload": workload,
            "interaction_id": interaction_id,
            "reason": reason,
            "created_at": act.now,
        }
        for interaction_id, reason in held.items()
        if interaction_id not in known
    ]
    return insert_ignoring_duplicates(session, ReviewItem, rows)


def judged(session: Session, ids: Sequence[str]) -> tuple[set[str], set[str]]:
    """Those of the interactions that reviewers let pass, and those held back or rejected."""
    accepted, held = set(), set()
    rows = session.exec(
        select(ReviewItem.interaction_id, ReviewItem.state, ReviewItem.reason).where(
            among(session, ReviewItem.interaction_id, ids)
        )
    )
    for interaction_id, state, reason in rows:
        kind = reason.partition(":")[0]
        if state == "accepted" and kind == "moderation":
            accepted.add(interaction_id)
        elif state != "accepted" and kind != "informative":
            held.add(interaction_id)
    return accepted, held


def _input_prompt(row: dict[str, Any]) -> str:
    if row["messages"]:
        return str(row["input_text"])
    return prompts.instruction(
        row["input_text"], target_tool=row["target_tool"], language=row["language"]
    )
