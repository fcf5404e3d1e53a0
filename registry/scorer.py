"""A fitted quality scorer: plain arrays in a folder, and what they say of an answer.

The folder holds `scorer.npz` (no pickle) and `manifest.json`; it is published as an artifact,
so that its digest tells whether it is what was fitted. Fitting is `training.discriminator`'s.
"""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from registry.errors import ArtifactError
from registry.features import FEATURES, NUM_HASHED, NUMBERS, Features, Floats, Sample, extract

NUM_KNOTS = 22
ARRAYS_FILE, MANIFEST_FILE = "scorer.npz", "manifest.json"
_SHAPES: Mapping[str, tuple[int, ...]] = {
    "weights": (NUM_HASHED,),
    "seen": (NUM_HASHED,),
    "number_weights": (len(NUMBERS),),
    "means": (len(NUMBERS),),
    "scales": (len(NUMBERS),),
    "calibration": (3,),
    "knots": (2, NUM_KNOTS),
    "kinds": (2,),
}


@dataclass(frozen=True)
class Reason:
    """How far one feature moved a score."""

    feature: str
    value: float
    """1 for what is present; a number's own value otherwise."""
    effect: float
    """In log-odds; above 0: it speaks for the answer."""


@dataclass(frozen=True)
class Scorer:
    """A calibrated logistic model: the chance that people like an answer."""

    weights: Floats
    """(NUM_HASHED,)"""
    seen: Floats
    """(NUM_HASHED,) how many fitted answers had a name that hashes there; 2 for more."""
    number_weights: Floats
    means: Floats
    scales: Floats
    """(len(NUMBERS),) each: numbers are standardised before they are weighed."""
    calibration: Floats
    """(3,) bias of the margin; slope and offset of Platt's sigmoid on it."""
    knots: Floats
    """(2, NUM_KNOTS) the sigmoid's chances, rising, and what people's ratings make of them."""
    kinds: Floats
    """(2,) whether it may score structured prompts, and turns of conversations: 1 or 0."""

    def may_score(self, sample: Sample) -> bool:
        """Whether it was tried on such answers, and passed."""
        return bool(self.kinds[int(sample.is_conversation)])

    def margin(self, features: Features) -> float:
        """The uncalibrated log-odds."""
        words = float(self.weights[features.indices].sum()) * features.value
        return words + float(self._standardised(features) @ self.number_weights + self._bias)

    def score(self, sample: Sample) -> float:
        """The chance, in [0, 1], that people like the answer."""
        return self.score_features(extract(sample))

    def score_features(self, features: Features) -> float:
        """The same for features that are there already."""
        sigmoid = 1.0 / (1.0 + np.exp(-np.clip(self._log_odds(features), -40.0, 40.0)))
        return float(np.interp(sigmoid, self.knots[0], self.knots[1]))

    def explain(self, sample: Sample, *, top: int = 10) -> tuple[Reason, ...]:
        """The features that moved the score most, in the sigmoid's log-odds."""
        features = extract(sample)
        slope = float(self.calibration[1])
        words = self.weights[features.indices] * features.value * slope
        numbers = self._standardised(features) * self.number_weights * slope
        reasons = [
            Reason(name, 1.0, float(weight))
            for name, weight in zip(features.names, words, strict=True)
        ]
        reasons += [
            Reason(name, float(value), float(weight))
            for name, value, weight in zip(NUMBERS, features.numbers, numbers, strict=True)
        ]
        reasons = [reason for reason in reasons if reason.effect]
        reasons.sort(key=lambda reason: (-abs(reason.effect), reason.feature))
        return tuple(reasons[:top])

    def novelty(self, features: Features, *, fitted: bool = False) -> float:
        """The share of names that no other answer had when the scorer was fitted.

        `fitted`: the answer is one of those, so that its names were met once at least.
        """
        if not features.names:
            return 0.0
        return float((self.seen[features.indices] <= fitted).mean())

    @property
    def _bias(self) -> float:
        return float(self.calibration[0])

    def _standardised(self, features: Features) -> Floats:
        return (features.numbers - self.means) / self.scales

    def _log_odds(self, features: Features) -> float:
        return float(self.calibration[1]) * self.margin(features) + float(self.calibration[2])


def save(scorer: Scorer, folder: Path, *, manifest: Mapping[str, Any]) -> None:
    """Write a scorer to a new folder; `manifest` tells how it came about."""
    folder.mkdir(parents=True)
    arrays = {name: np.asarray(getattr(scorer, name), np.float32) for name in _SHAPES}
    np.savez_compressed(folder / ARRAYS_FILE, **arrays)  # type: ignore[arg-type]
    content = {"features": FEATURES, **manifest}
    (folder / MANIFEST_FILE).write_text(
        json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False), encoding="utf-8"
    )


def load(folder: Path) -> Scorer:
    """Read a scorer. Raises `ArtifactError` where it is damaged or of another time."""
    made_for = read_manifest(folder).get("features")
    if made_for != FEATURES:
        raise ArtifactError(f"scorer {folder.name} is made for '{made_for}', this is '{FEATURES}'")
    try:
        with (
            (folder / ARRAYS_FILE).open("rb") as file,
            np.load(file, allow_pickle=False) as arrays,
        ):
            found = {name: np.asarray(arrays[name], np.float64) for name in _SHAPES}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"scorer {folder.name} cannot be read: {error}") from error
    for name, shape in _SHAPES.items():
        if found[name].shape != shape or not np.isfinite(found[name]).all():
            raise ArtifactError(f"scorer {folder.name}: '{name}' is not {shape} finite numbers")
    return Scorer(**found)


def read_manifest(folder: Path) -> dict[str, Any]:
    """How a scorer came about. Raises `ArtifactError` where that cannot be read."""
    try:
        content = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"scorer {folder.name}: no readable manifest: {error}") from error
    if not isinstance(content, dict):
        raise ArtifactError(f"scorer {folder.name}: its manifest is no object")
    return content
