"""Immutable datasets: the selected samples of a workload as ChatML, named by their content."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlmodel import Session, col, select

from registry import acts, lineage, texts
from registry.artifacts import ArtifactStore
from registry.clock import Clock, NewId
from registry.crypto import Keyring
from registry.db import Database
from registry.deployment import Act
from registry.errors import SettingsError
from registry.models import TrainingData
from registry.settings import CurationSettings

ACTOR = "flow:curate"
TRAIN_FILE, VALIDATION_FILE, MANIFEST_FILE = "train.jsonl", "validation.jsonl", "manifest.json"


@dataclass(frozen=True)
class BuiltDataset:
    """A registered dataset and its files. `num_train` counts curated samples, not rehearsal."""

    dataset_id: str
    digest: str
    folder: Path
    num_train: int
    num_validation: int
    num_rehearsal: int

    @property
    def train_file(self) -> Path:
        """ChatML records to learn from."""
        return self.folder / TRAIN_FILE

    @property
    def validation_file(self) -> Path:
        """ChatML records that are held out."""
        return self.folder / VALIDATION_FILE

    @property
    def num_samples(self) -> int:
        """Curated samples on both sides."""
        return self.num_train + self.num_validation


def build_dataset(
    database: Database,
    store: ArtifactStore,
    *,
    workload: str,
    settings: CurationSettings,
    keyring: Keyring,
    folder: Path,
    clock: Clock,
    new_id: NewId,
) -> BuiltDataset:
    """Write every selected sample of `workload` to `folder`, publish and register it.

    `folder` must not exist. The same samples give the same digest, and the same dataset.
    """
    with database.read() as session:
        samples = _selected(session, workload=workload)
        for sample in samples:
            texts.reveal(sample, keyring)
    train = [sample for sample in samples if sample.split == "train"]
    validation = [sample for sample in samples if sample.split == "validation"]
    rehearsal = _rehearsal(settings, limit=round(settings.rehearsal_ratio * len(train)))
    folder.mkdir(parents=True)
    records = [_record(sample, settings) for sample in train]
    _write_lines(folder / TRAIN_FILE, [*records, *rehearsal])
    _write_lines(folder / VALIDATION_FILE, [_record(sample, settings) for sample in validation])
    counts = {
        "train": len(train),
        "validation": len(validation),
        "rehearsal": len(rehearsal),
        "corrected": sum(sample.source == "corrected" for sample in samples),
    }
    used = settings.model_dump(mode="json")
    (folder / MANIFEST_FILE).write_text(
        json.dumps(
            {"workload": workload, "format": "chatml", "counts": counts, "settings": used},
            indent=2,
            sort_keys=True,
        ),
        encoding="utf-8",
    )
    digest = store.publish(folder)
    new, now = new_id(), clock()
    with database.write() as session:
        dataset = lineage.add_dataset(
            session,
            dataset_id=new,
            workload=workload,
            digest=digest,
            items=[(sample.id, sample.split) for sample in samples],
            settings=used,
            counts=counts,
            now=now,
        )
        if dataset.id == new:
            acts.record(
                session,
                Act(ACTOR, "samples that were selected", now, keyring, new_id),
                action="build_dataset",
                subject=f"dataset:{new}",
                details={"workload": workload, "digest": digest, "counts": counts},
            )
    return BuiltDataset(
        dataset_id=dataset.id,
        digest=digest,
        folder=folder,
        num_train=len(train),
        num_validation=len(validation),
        num_rehearsal=len(rehearsal),
    )


def _selected(session: Session, *, workload: str) -> Sequence[TrainingData]:
    return session.exec(
        select(TrainingData)
        .where(TrainingData.workload == workload, col(TrainingData.is_selected).is_(True))
        .order_by(col(TrainingData.content_hash))
    ).all()


def _record(sample: TrainingData, settings: CurationSettings) -> dict[str, Any]:
    asked = sample.messages or [{"role": "user", "content": sample.input_prompt}]
    return {
        "id": sample.id,
        "messages": [*asked, {"role": "assistant", "content": sample.target_output}],
        "target_tool": sample.domain_category,
        "language": sample.language,
        "weight": settings.corrected_weight if sample.source == "corrected" else 1.0,
        "source": sample.source,
    }


def _rehearsal(settings: CurationSettings, *, limit: int) -> list[dict[str, Any]]:
    """The first `limit` records of the rehearsal file. Raises `SettingsError` if it is unfit."""
    if settings.rehearsal_file is None:
        return []
    path = Path(settings.rehearsal_file)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SettingsError(f"cannot read curation.rehearsal_file {path}: {error}") from error
    return list(_parse_rehearsal(path, [line for line in lines if line.strip()][:limit]))


def _parse_rehearsal(path: Path, lines: Sequence[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            ends_with_answer = record["messages"][-1]["role"] == "assistant"
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise SettingsError(f"{path}, line {number}: not a ChatML record") from error
        if not ends_with_answer:
            raise SettingsError(f"{path}, line {number}: its last message is not the assistant's")
        yield {"weight": 1.0, **record, "id": f"rehearsal-{number}", "source": "rehearsal"}


def _write_lines(path: Path, records: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
