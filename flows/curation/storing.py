"""What curation reads from and writes to `training_data`: a batch at a time, in few statements."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import polars as pl
from sqlalchemy import func, inspect, update
from sqlalchemy import select as select_columns
from sqlmodel import Session, col, select

from flows.curation.frames import ACCEPTED, HELD
from flows.curation.kin import Kind, Sample
from flows.curation.signatures import request_text, word_keys
from flows.curation.splitting import unit_interval
from registry import prompts, texts
from registry.among import among
from registry.crypto import Keyring
from registry.deployment import Act
from registry.inserting import insert_columns, insert_ignoring_duplicates
from registry.models import CuratedSignature, ReviewItem, TrainingData, UserInteraction
from registry.privacy import may_be_learned


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
        yield str(request), Sample(str(request), (created_at, ""), cluster, side, False, False)


def samples(
    session: Session,
    keyring: Keyring,
    ids: Sequence[str],
    kind: Kind,
    *,
    fallen: Collection[str],
    standing: Mapping[str, str],
) -> dict[str, Sample]:
    """Those of the samples that are there; those that are selected and stood by count.

    Not those of interactions that have `fallen`, or that stand for another content now.
    """
    found = {}
    for row in stored_samples(session, keyring, ids):
        origin, content = row["source_interaction_id"], row["content_hash"]
        stands = standing.get(origin, content) == content and origin not in fallen
        asked = _request_of(row)
        text = asked if kind == "request_signature" else f"{asked}\n{row['target_output']}"
        found[row["id"]] = Sample(
            id=row["id"],
            age=(row["created_at"], row["id"]),
            cluster_id=row["cluster_id"],
            side=row["split"],
            corrected=row["source"] == "corrected",
            counts=row["is_selected"] and row["label"] is None and stands,
            words=word_keys(text),
        )
    return found


def stored_samples(
    session: Session, keyring: Keyring, ids: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Those of the samples that are there, with all columns, as people wrote them."""
    columns = inspect(TrainingData).columns
    query = select_columns(*columns).where(among(session, TrainingData.id, ids))
    for row in session.connection().execute(query).mappings():
        yield texts.unseal_row("training_data", dict(row), keyring)


def _request_of(row: Mapping[str, Any]) -> str:
    """What was asked, as `request_text` has it of a row of a frame."""
    prompt: str = row["input_prompt"]
    if row["messages"] is not None:
        return request_text(json.dumps(row["messages"]), prompt)
    return prompts.request_of(prompt)


def review_earlier(session: Session, seen: Sequence[str], standing: Mapping[str, str]) -> int:
    """Unselect samples that their interaction left behind; select those it stands by.

    `standing`: content of each interaction that passes the filters now. How many went out.
    Of whoever has opted out meanwhile nothing is selected again.
    """
    withdrawn = 0
    back: dict[str, str] = {}
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
        if stands and not selected:
            back[sample_id] = interaction_id
        elif selected and not stands:
            changed.setdefault((False, "feedback changed"), []).append(sample_id)
            withdrawn += 1
    if back:
        allowed = _learnable(session, list(back.values()))
        changed[True, None] = [sample for sample, source in back.items() if source in allowed]
    for (stands, reason), ids in changed.items():
        session.connection().execute(
            update(TrainingData)
            .where(among(session, TrainingData.id, ids))
            .values(is_selected=stands, rejection_reason=reason)
        )
    return withdrawn


def _learnable(session: Session, interaction_ids: Sequence[str]) -> set[str]:
    of_these = among(session, UserInteraction.id, interaction_ids)
    return set(session.exec(select(UserInteraction.id).where(of_these, may_be_learned())))


def still_learnable(session: Session, frame: pl.DataFrame) -> pl.DataFrame:
    """Without what was erased, or whose author opted out, since it was read."""
    ids = frame["id"].to_list()
    allowed = among(session, UserInteraction.id, ids), may_be_learned()
    if session.exec(select(func.count()).where(*allowed)).one() == len(ids):
        return frame
    found = session.exec(select(UserInteraction.id).where(*allowed)).all()
    there = pl.Series("id", found, dtype=pl.String).to_frame()
    return frame.join(there, on="id", how="semi", maintain_order="left")


def add_samples(session: Session, act: Act, frame: pl.DataFrame, *, workload: str) -> pl.DataFrame:
    """Write the samples of a frame and their signatures; the frame with the `sample_id` of each."""
    number = frame.height
    ids = [act.new_id() for _ in range(number)]
    plain = {
        "input_prompt": [_input_prompt(*row) for row in frame.select(_ASKED).iter_rows()],
        "target_output": frame["target"].to_list(),
        "rejected_output": frame["rejected"].to_list(),
        "messages": [text and json.loads(text) for text in frame["messages"]],
    }
    columns = {
        "id": ids,
        "workload": workload,
        **{
            name: texts.seal_column("training_data", name, ids, values, act.keyring)
            for name, values in plain.items()
        },
        "label": [False if disliked else None for disliked in frame["disliked"]],
        "reservoir_key": [unit_interval(content) for content in frame["content_hash"]],
        "is_curated": True,
        "is_selected": True,
        "created_at": act.now,
        **{name: frame[column].to_list() for name, column in _AS_THEY_ARE.items()},
    }
    insert_columns(session, TrainingData, columns, num_rows=number)
    written = frame.with_columns(sample_id=pl.Series(ids, dtype=pl.String))
    signed = written.filter(pl.col("signature").is_not_null())
    signatures = {
        "training_data_id": signed["sample_id"].to_list(),
        "workload": workload,
        "signature": signed["signature"].to_list(),
        "request_signature": signed["request_signature"].to_list(),
    }
    insert_columns(session, CuratedSignature, signatures, num_rows=signed.height)
    return written


_ASKED = ("messages", "input_text", "target_tool", "language")
_AS_THEY_ARE = {
    "source_interaction_id": "id",
    "source": "source",
    "quality_score": "quality_score",
    "domain_category": "domain",
    "use_case": "use_case",
    "template_id": "template_id",
    "language": "spoken",
    "content_hash": "content_hash",
    "request_hash": "request_hash",
    "cluster_id": "cluster_id",
    "split": "split",
}


def hold(session: Session, act: Act, held: Mapping[str, str], *, workload: str) -> int:
    """Put interactions (id → reason) into the reviewers' queue, each once; how many are new.

    Not those that were erased since they were read.
    """
    there = set(
        session.exec(select(UserInteraction.id).where(among(session, UserInteraction.id, held)))
    )
    known = set(
        session.exec(
            select(ReviewItem.interaction_id).where(
                among(session, ReviewItem.interaction_id, held),
                col(ReviewItem.reason).startswith("moderation:"),
            )
        )
    )
    new = there - known
    rows = [
        {
            "id": act.new_id(),
            "workload": workload,
            "interaction_id": interaction_id,
            "reason": reason,
            "created_at": act.now,
        }
        for interaction_id, reason in held.items()
        if interaction_id in new
    ]
    return insert_ignoring_duplicates(session, ReviewItem, rows)


def with_judgements(session: Session, frame: pl.DataFrame) -> pl.DataFrame:
    """Add `judgement`: what reviewers said of each interaction."""
    found: dict[str, str] = {}
    rows = session.exec(
        select(ReviewItem.interaction_id, ReviewItem.state, ReviewItem.reason).where(
            among(session, ReviewItem.interaction_id, frame["id"].to_list())
        )
    )
    for interaction_id, state, reason in rows:
        kind = reason.partition(":")[0]
        if state == "accepted" and kind == "moderation":
            found.setdefault(interaction_id, ACCEPTED)
        elif state != "accepted" and kind != "informative":
            found[interaction_id] = HELD
    judgements = [found.get(name) for name in frame["id"]]
    return frame.with_columns(judgement=pl.Series(judgements, dtype=pl.String))


def _input_prompt(
    messages: str | None, request: str, tool: str | None, language: str | None
) -> str:
    if messages:
        return request
    return prompts.instruction(request, target_tool=tool, language=language)
