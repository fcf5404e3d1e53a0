"""Starts writers that are there to be killed: `python -m tests.support.crash_nursery HOME`.

Each line on stdin names what a writer does; the answer is its process id. Writers are forked,
so that each begins at once. What they have done for good they append to HOME/acknowledged.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

from flows.context import Context, open_context
from flows.curation.dataset import build_dataset
from flows.erasing import eraser
from registry import experiments, interactions, versions
from registry.clock import new_id, utc_now
from registry.db import Database
from registry.interactions import Feedback, Interaction
from registry.models import TrainingData
from registry.settings import CurationSettings, Settings
from serving.recording.recorder import Recorder
from serving.recording.spool import Spool
from tests.support.migrating import migrate

OLD = "old.db"
WRITERS = 4

Acknowledge = Callable[[str, str], None]


def answer(row_id: str) -> Interaction:
    return Interaction(
        id=row_id,
        created_at=utc_now(),
        input_text="a" * 300,
        structured_prompt="b" * 300,
        model_output="c" * 300,
        external_user_id=f"user-{row_id[-1]}",
        ip_address="192.0.2.7",
        quality_score=0.5,
    )


def record(context: Context, acknowledge: Acknowledge) -> None:
    """Answers and feedback, through the product's recorder."""

    async def live() -> None:
        spool = Spool(context.settings.home / "spool", max_bytes=2**30)
        recorder = Recorder(context.database, context.keyring, spool=spool)
        recorder.start()

        async def write() -> None:
            while True:
                row, event = answer(new_id()), new_id()
                await recorder.record(row)
                acknowledge("interaction", row.id)
                await recorder.feedback(Feedback(interaction_id=row.id, score=4, id=event))
                acknowledge("feedback", event)

        await asyncio.gather(*(write() for _ in range(WRITERS)))

    asyncio.run(live())


def promote(context: Context, acknowledge: Acknowledge) -> None:
    """One version after the other becomes champion."""
    for _ in count():
        name = f"v-{new_id()}"
        with context.database.write() as session:
            versions.register(
                session,
                version=name,
                workload="default",
                base_model="b",
                adapter_digest="d",
                recipe="r",
                now=utc_now(),
            )
        with context.database.write() as session:
            act = context.act("test", "promoted")
            experiments.deploy(session, act, workload="default", version=name)
        acknowledge("champion", name)


def publish(context: Context, acknowledge: Acknowledge) -> None:
    """Datasets, each of one sample more than the one before."""
    for _ in count():
        row = answer(new_id())
        with context.database.write() as session:
            interactions.log(session, [row], keyring=context.keyring)
            session.add(
                TrainingData(
                    id=new_id(),
                    source_interaction_id=row.id,
                    input_prompt="a",
                    target_output="b",
                    content_hash=row.id,
                    cluster_id=row.id,
                    split="train",
                    is_selected=True,
                    created_at=utc_now(),
                )
            )
        built = build_dataset(
            context.database,
            context.store,
            workload="default",
            settings=CurationSettings(),
            keyring=context.keyring,
            folder=context.folder("datasets") / new_id(),
            clock=utc_now,
            new_id=new_id,
        )
        acknowledge("dataset", built.digest)


def erase(context: Context, acknowledge: Acknowledge) -> None:
    """Person after person asks something, is learned from, and is erased."""
    for _ in count():
        person = f"gone-{new_id()}"
        row = replace(answer(new_id()), external_user_id=person)
        with context.database.write() as session:
            interactions.log(session, [row], keyring=context.keyring)
        acknowledge("asked", person)
        eraser(context).erase(person, actor="test", approved_by="test")
        acknowledge("erased", person)


def upgrade(context: Context, _acknowledge: Acknowledge) -> None:
    """An old database to the newest schema and back again."""
    database = Database(f"sqlite:///{context.settings.home / OLD}")
    for _ in count():
        database.upgrade()
        with database.write() as session:
            migrate(session.connection(), "0001")


WORK = {
    "record": record,
    "promote": promote,
    "publish": publish,
    "erase": erase,
    "upgrade": upgrade,
}


def work(home: Path, kind: str) -> None:
    descriptor = os.open(home / "acknowledged", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def acknowledge(what: str, name: str) -> None:
        os.write(descriptor, f"{what} {name}\n".encode())

    WORK[kind](open_context(Settings(home=home)), acknowledge)


def main(home: Path) -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                work(home, line.strip())
            finally:
                os._exit(1)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
        os.waitpid(child, 0)
        sys.stdout.write("gone\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
