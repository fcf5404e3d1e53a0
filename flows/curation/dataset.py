"""Immutable datasets: samples of a workload in several forms, named by their content."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from sqlmodel import Session

from flows.curation import storing
from flows.curation.exporting import PREFERENCE, Record, card, write_split
from flows.curation.selection import Selection, select_samples
from flows.curation.splitting import OF_FILE, SIDES
from registry import acts, lineage
from registry.artifacts import ArtifactStore
from registry.clock import Clock, NewId
from registry.crypto import Keyring
from registry.db import Database
from registry.deployment import Act
from registry.errors import SettingsError
from registry.settings_curation import CurationSettings

ACTOR = "flow:curate"
TRAIN_FILE, VALIDATION_FILE, MANIFEST_FILE = "train.jsonl", "validation.jsonl", "manifest.json"
TEST_FILE, CARD_FILE = "test.jsonl", "README.md"
BLOCK_ROWS = 2_000


@dataclass(frozen=True)
class BuiltDataset:
    """A registered dataset and its files. `num_train` counts fresh samples, not rehearsal."""

    dataset_id: str
    digest: str
    folder: Path
    num_train: int
    num_validation: int
    num_rehearsal: int
    num_test: int = 0

    @property
    def train_file(self) -> Path:
        """ChatML records to learn from."""
        return self.folder / TRAIN_FILE

    @property
    def preference_file(self) -> Path:
        """The same with what corrections correct, and what people disliked."""
        return self.folder / PREFERENCE / TRAIN_FILE

    @property
    def validation_file(self) -> Path:
        """ChatML records that are held out."""
        return self.folder / VALIDATION_FILE

    @property
    def num_samples(self) -> int:
        """Fresh samples to train on and to validate with."""
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
    """Write the chosen samples of `workload` to `folder`, publish and register them.

    `folder` must not exist. The same samples give the same digest, and the same dataset.
    """
    folder.mkdir(parents=True)
    with database.read() as session:
        chosen = select_samples(session, settings, workload=workload)
        counts = _write(session, keyring, chosen, settings, folder)
    used = settings.model_dump(mode="json")
    _write_manifest(folder, workload=workload, counts=counts, left=chosen.left, settings=used)
    digest = store.publish(folder)
    items = [*_items(chosen.fresh), *_items(chosen.rehearsal)]
    items += [(name, "train") for name in chosen.disliked]
    new, now = new_id(), clock()
    with database.write() as session:
        dataset = lineage.add_dataset(
            session,
            dataset_id=new,
            workload=workload,
            digest=digest,
            items=items,
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
        num_train=counts["train"],
        num_validation=counts["validation"],
        num_rehearsal=counts["rehearsal"],
        num_test=counts["test"],
    )


def _write(
    session: Session,
    keyring: Keyring,
    chosen: Selection,
    settings: CurationSettings,
    folder: Path,
) -> dict[str, int]:
    """Write all files of samples; how many of each kind."""
    sizes = {side: int((chosen.fresh["split"] == side).sum()) for side in SIDES}
    from_file = _rehearsal(
        settings,
        limit=round(settings.rehearsal_ratio * sizes["train"]) - chosen.rehearsal.height,
    )

    def blocks(side: str) -> Iterator[list[Record]]:
        of_side = chosen.fresh.filter(pl.col("split") == side)["id"].to_list()
        if side == "train":
            of_side += chosen.disliked
        yield from _records(session, keyring, of_side, settings)
        if side == "train":
            earlier = chosen.rehearsal["id"].to_list()
            for block in _records(session, keyring, earlier, settings):
                yield [{**record, "weight": 1.0, "source": "rehearsal"} for record in block]
            yield from_file

    for side in SIDES:
        write_split(folder, side, blocks(side), settings.forms)
    (folder / CARD_FILE).write_text(card(settings.forms, SIDES), encoding="utf-8")
    return {
        **sizes,
        "rehearsal": chosen.rehearsal.height + len(from_file),
        "corrected": int((chosen.fresh["source"] == "corrected").sum()),
        "disliked": len(chosen.disliked),
    }


def _write_manifest(
    folder: Path, *, workload: str, counts: dict[str, int], left: dict[str, int], settings: Any
) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = {
        "workload": workload,
        "format": "chatml",
        "counts": counts,
        "selection": left,
        "settings": settings,
        "sha256": {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
        },
    }
    text = json.dumps(manifest, indent=2, sort_keys=True)
    (folder / MANIFEST_FILE).write_text(text, encoding="utf-8")


def _items(frame: pl.DataFrame) -> list[tuple[str, str]]:
    return list(frame.select("id", "split").iter_rows())


def _records(
    session: Session, keyring: Keyring, ids: Sequence[str], settings: CurationSettings
) -> Iterator[list[Record]]:
    for start in range(0, len(ids), BLOCK_ROWS):
        chosen = ids[start : start + BLOCK_ROWS]
        found = {row["id"]: row for row in storing.stored_samples(session, keyring, chosen)}
        yield [_record(found[name], settings) for name in chosen]


def _record(sample: Mapping[str, Any], settings: CurationSettings) -> Record:
    asked = sample["messages"] or [{"role": "user", "content": sample["input_prompt"]}]
    said = {"rejected": sample["rejected_output"], "label": sample["label"]}
    return {
        "id": sample["id"],
        "messages": [*asked, {"role": "assistant", "content": sample["target_output"]}],
        "target_tool": sample["domain_category"],
        "language": sample["language"],
        "weight": settings.corrected_weight if sample["source"] == "corrected" else 1.0,
        "source": sample["source"],
        **{name: value for name, value in said.items() if value is not None},
    }


def _rehearsal(settings: CurationSettings, *, limit: int) -> list[Record]:
    """The first `limit` records of the rehearsal file. Raises `SettingsError` if it is unfit."""
    if settings.rehearsal_file is None or limit <= 0:
        return []
    path = Path(settings.rehearsal_file)
    try:
        # Only a newline ends a record: texts may hold other separators of lines.
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise SettingsError(f"cannot read curation.rehearsal_file {path}: {error}") from error
    return list(_parse_rehearsal(path, [line for line in lines if line.strip()][:limit]))


def _parse_rehearsal(path: Path, lines: Sequence[str]) -> Iterator[Record]:
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            ends_with_answer = record["messages"][-1]["role"] == "assistant"
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise SettingsError(f"{path}, line {number}: not a ChatML record") from error
        if not ends_with_answer:
            raise SettingsError(f"{path}, line {number}: its last message is not the assistant's")
        yield {"weight": 1.0, **record, "id": f"{OF_FILE}{number}", "source": "rehearsal"}
