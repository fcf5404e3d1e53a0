"""What reviewers reject: a logistic regression on hashed words, fitted on their decisions.

It takes part once there are enough decisions and it ranks those it has not seen well enough.
Fitted anew in each pass, from rows that erasure reaches; nothing of it is stored.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from scipy.stats import rankdata
from sqlmodel import Session, col, select

from flows.curation.signatures import request_text, words
from registry import texts
from registry.crypto import Keyring
from registry.models import ReviewItem, UserInteraction
from registry.settings_curation import ModerationSettings

NUM_FEATURES = 2**14
LEAST_OF_EACH = 40
MIN_AUC = 0.8
HELD_OUT_EVERY = 5
L2 = 1e-3
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rejections:
    """The chance of each text to be rejected."""

    weights: Floats

    def __call__(self, written: pl.Series) -> pl.Series:
        """One chance per text."""
        scores = _features(written.to_list()) @ self.weights[:-1] + self.weights[-1]
        return pl.Series(1 / (1 + np.exp(-np.clip(scores, -50, 50))), dtype=pl.Float64)


def learn_rejections(
    session: Session, keyring: Keyring, settings: ModerationSettings, *, workload: str
) -> Rejections | None:
    """Fit on what reviewers have decided of moderation's finds; None where it says too little."""
    rows = session.exec(
        select(UserInteraction, ReviewItem.state)
        .join(UserInteraction, col(UserInteraction.id) == col(ReviewItem.interaction_id))
        .where(
            ReviewItem.workload == workload,
            col(ReviewItem.state).in_(["accepted", "rejected"]),
            col(ReviewItem.reason).startswith("moderation:"),
        )
        .order_by(col(ReviewItem.id))
    ).all()
    if len(rows) < settings.min_labels:
        return None
    samples = []
    for row, _ in rows:
        texts.reveal(row, keyring)
        messages = json.dumps(row.messages) if row.messages else None
        asked = request_text(messages, row.input_text)
        samples.append(f"{asked}\n{row.structured_prompt}")
    return fit(samples, [state == "rejected" for _, state in rows])


def fit(written: Sequence[str], rejected: Sequence[bool]) -> Rejections | None:
    """Fit on texts and whether each was rejected; None below the AUC on held-out texts."""
    labels = np.array(rejected, np.float64)
    if min(labels.sum(), len(labels) - labels.sum()) < LEAST_OF_EACH:
        return None
    features = _features(written)
    held_out = np.arange(len(labels)) % HELD_OUT_EVERY == 0
    tried = _weights(features[~held_out], labels[~held_out])
    auc = _auc(features[held_out] @ tried[:-1], labels[held_out])
    return Rejections(_weights(features, labels)) if auc >= MIN_AUC else None


def _features(written: Sequence[str]) -> csr_matrix:
    """Each text's hashed words, of length one."""
    rows = [
        sorted({zlib.crc32(word.encode()) % NUM_FEATURES for word in words(t)}) for t in written
    ]
    sizes = np.array([len(row) for row in rows], np.int64)
    values = np.repeat(1 / np.sqrt(np.maximum(sizes, 1)), sizes)
    places = np.array([place for row in rows for place in row], np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    return csr_matrix((values, places, offsets), shape=(len(rows), NUM_FEATURES))


def _weights(features: csr_matrix, labels: Floats) -> Floats:
    def loss(weights: Floats) -> tuple[float, Floats]:
        scores = features @ weights[:-1] + weights[-1]
        misses = 1 / (1 + np.exp(-np.clip(scores, -50, 50))) - labels
        value = np.mean(np.logaddexp(0, scores) - labels * scores)
        gradient = np.append(features.T @ misses, misses.sum()) / len(labels)
        gradient[:-1] += L2 * weights[:-1]
        return float(value + L2 / 2 * weights[:-1] @ weights[:-1]), gradient

    found = minimize(loss, np.zeros(features.shape[1] + 1), jac=True, method="L-BFGS-B")
    return np.asarray(found.x, np.float64)


def _auc(scores: Floats, labels: Floats) -> float:
    """The chance that a rejected text is scored above an accepted one (Mann-Whitney)."""
    bad = labels.sum()
    good = len(labels) - bad
    if not bad or not good:
        return 0.0
    return float((rankdata(scores)[labels == 1].sum() - bad * (bad + 1) / 2) / (bad * good))
