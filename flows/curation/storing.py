"""What curation reads from and writes to `training_data`: a batch at a time, in few statements."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from sqlalchemy import func, insert, update
from sqlmodel import Session, col, select

from flows.curation.neardup import Kind, Sample
from flows.curation.signatures import (
    NUM_PERMUTATIONS,
    Signatures,
    request_text,
    word_keys,
    words,
)
from flows.curation.splitting import unit_interval
from registry import prompts, texts
from registry.among import among
from registry.crypto import Keyring
from registry.deployment import Act
from registry.inserting import insert_ignoring_duplicates
from registry.models import CuratedSignature, ReviewItem, TrainingData

_PREFIX = prompts.instruction("", target_tool=None, language=None).partition("\n")[0]
SIGNATURE_ROWS = 50_000


def known_contents(session: Session, hashes: Sequence[str], *, workload: str) -> set[str]:
    """Those of the contents that were curated before."""
    query = select(TrainingData.content_hash).where(
        TrainingData.workload == workload, among(session, TrainingData.content_hash, hashes)
    )
    return set(session.exec(query))


def equal_requests(
    session: Session, hashes: Collection[str], *, workload: str
) -> Iterator[tuple[str, Sample]]:
    """Requests among these with the oldest sample of each side they stand on."""
    sample = TrainingData
    query = (
        select(
            sample.request_hash, sample.cluster_id, sample.split, func.min(col(sample.created_at))
        )
        .where(sample.workload == workload, among(session, sample.request_hash, hashes))
        .group_by(col(sample.request_hash), col(sample.cluster_id), col(sample.split))
    )
    for request, cluster, side, created_at in session.exec(query):
        yield str(request), Sample(str(request), (created_at, ""), cluster, side, False, False, {})


def signature_blocks(
    session: Session, kind: Kind, *, workload: str
) -> Iterator[tuple[Sequence[str], Signatures]]:
    """The signatures of everything that was curated before, block by block."""
    signature, last = getattr(CuratedSignature, kind), ""
    while True:
        query = (
            select(CuratedSignature.training_data_id, signature)
            .where(
                CuratedSignature.workload == workload,
                CuratedSignature.training_data_id > last,
                signature.is_not(None),
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
    """Those of the samples that are there; those that are selected and stood by count.

    Not those of interactions that have `fallen`, or that stand for another content now.
    """
    found = {}
    for row in session.exec(select(TrainingData).where(among(session, TrainingData.id, ids))):
        origin = row.source_interaction_id
        stands = standing.get(origin, row.content_hash) == row.content_hash
        texts.reveal(row, keyring)
        asked = _request_of(row)
        found[row.id] = Sample(
            id=row.id,
            age=(row.created_at, row.id),
            cluster_id=row.cluster_id,
            side=row.split,
            corrected=row.source == "corrected",
            counts=row.is_selected and row.label is None and stands and origin not in fallen,
            keys={
                "signature": word_keys(words(f"{asked}\n{row.target_output}")),
                "request_signature": word_keys(words(asked)),
            },
        )
    return found


def _request_of(row: TrainingData) -> str:
    """What was asked, as `request_text` has it of a row of a frame."""
    if row.messages is not None:
        return request_text(json.dumps(row.messages), row.input_prompt)
    request = row.input_prompt.removeprefix(_PREFIX).rpartition("\nTool: ")[0]
    return request or row.input_prompt


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
            "rejected_output": row["rejected"],
            "label": False if row["disliked"] else None,
            "messages": json.loads(row["messages"]) if row["messages"] else None,
            "source": row["source"],
            "quality_score": row["quality_score"],
            "domain_category": row["domain"],
            "use_case": row["use_case"],
            "template_id": row["template_id"],
            "reservoir_key": unit_interval(row["content_hash"]),
            "language": row["spoken"],
            "content_hash": row["content_hash"],
            "request_hash": row["request_hash"],
            "cluster_id": row["cluster_id"],
            "split": row["split"],
            "is_curated": True,
            "is_selected": True,
            "created_at": act.now,
        }
        for sample_id, row in zip(ids, frame.iter_rows(named=True), strict=True)
    ]
    signatures = [
        {
            "training_data_id": sample_id,
            "workload": workload,
            "signature": signature,
            "request_signature": asked,
        }
        for sample_id, signature, asked in zip(
            ids, frame["signature"], frame["request_signature"], strict=True
        )
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
