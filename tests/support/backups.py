"""An installation with content of every kind, for what copies all of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlmodel import SQLModel

from registry import deployment, experiments, lineage, runs, trial_rows, versions
from registry.artifacts import ArtifactStore
from registry.backup import make_backup
from registry.backup_manifest import Manifest, faults, read_manifest
from registry.crypto import Keyring, load_keyring
from registry.db import Database
from registry.deployment import Act
from registry.interactions import Feedback, Interaction, add_feedback, log
from registry.models import TrainingData
from registry.restore import Restored, publish_artifacts, restore_database, take_keys

NOW = datetime(2026, 1, 14, 12, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
UNCOUNTED = {"replica_status", "usage_hours", "trial_rows"}
"""Of the moment, filled by the database itself, differently by each, or read anew."""


class Installation:
    """A registry with its artifacts in a folder, on any database."""

    def __init__(self, home: Path, url: str) -> None:
        self.home = home
        self.database = Database(url)
        self.store = ArtifactStore((home / "artifacts").as_uri(), cache=home / "cache")
        self._number = 0

    @property
    def keyring(self) -> Keyring:
        return load_keyring(self.home)

    def new_id(self) -> str:
        self._number += 1
        return f"{self.home.name}-{self._number:05}"

    def act(self, reason: str, now: datetime = NOW) -> Act:
        return Act("test", reason, now, self.keyring, self.new_id)

    def publish(self, name: str) -> str:
        folder = self.home / "made" / name
        folder.mkdir(parents=True)
        (folder / "content.txt").write_text(name)
        return self.store.publish(folder)

    def back_up(self, folder: Path, **options: Any) -> Manifest:
        return make_backup(
            self.database,
            self.store.url,
            folder,
            home=self.home,
            keyring=self.keyring,
            now=NOW,
            **options,
        )

    def restore(self, folder: Path, *, force: bool = False) -> Restored:
        manifest = read_manifest(folder)
        keyring = take_keys(folder, manifest, self.home)
        assert faults(folder, manifest, keyring=keyring) == []
        publish_artifacts(folder, manifest, self.store)
        act = self.act("restored", LATER)
        return restore_database(folder, manifest, self.database, self.store, act, force=force)

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """Everything in the database."""
        with self.database.read() as session:
            return {
                table.name: [
                    tuple(row)
                    for row in session.connection().execute(
                        table.select().order_by(*table.primary_key)
                    )
                ]
                for table in SQLModel.metadata.sorted_tables
                if table.name not in UNCOUNTED
            }


def fill(world: Installation) -> None:
    """Content of every kind: a champion, a trial, datasets, a running training, odd values."""
    world.database.upgrade()
    with world.database.write() as session:
        deployment.add_workload(session, "default", now=NOW)
        item = Interaction(
            id="i",
            created_at=NOW,
            input_text='quotes " and\nlines, ünïcødé \U0001f600',
            messages=[{"role": "user", "content": "hi", "number": 1e16}],
            structured_prompt="",
            model_output="Role: x",
            external_user_id="alice",
            ip_address="192.0.2.1",
            processing_time_ms=0.1 + 0.2,
        )
        log(session, [item], keyring=world.keyring)
        feedback = Feedback(interaction_id="i", score=5)
        add_feedback(session, feedback, now=NOW, new_id=world.new_id)
        session.add(sample())
        session.flush()
        dataset = lineage.add_dataset(
            session,
            dataset_id="d",
            workload="default",
            digest=world.publish("dataset"),
            items=[("t", "train")],
            settings={},
            counts={"train": 1},
            now=NOW,
        )
        for name, parent in (("b", None), ("a", "b"), ("c", "a")):  # parents sort after children
            versions.register(
                session,
                version=name,
                workload="default",
                base_model="base",
                adapter_digest=world.publish(name),
                recipe="r",
                now=NOW,
                parent_version=parent,
                training_dataset_id=dataset.id,
            )
        experiments.deploy(session, world.act("first"), workload="default", version="b")
        experiments.deploy(session, world.act("second"), workload="default", version="a")
        trial = experiments.start(
            session,
            world.act("try"),
            workload="default",
            challenger="c",
            share=0.1,
            settings={},
        )
        runs.start(session, run_id="run", workload="default", trigger="manual", now=NOW)
    trial_rows.keep(world.database, trial, prior_days=7)


def sample() -> TrainingData:
    return TrainingData(
        id="t",
        source_interaction_id="i",
        input_prompt="p",
        target_output="o",
        content_hash="h",
        cluster_id="h",
        split="train",
        created_at=NOW,
    )


def other(name: str) -> Interaction:
    return Interaction(
        id=name,
        created_at=NOW,
        input_text=name,
        structured_prompt=name,
        model_output=name,
        external_user_id="bob",
    )
