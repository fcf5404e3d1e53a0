"""Records answers while the database is away, telling each id once it is safe: `… HOME`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from registry.clock import new_id, utc_now
from registry.crypto import load_keyring
from registry.interactions import Interaction
from registry.settings import Settings
from serving.recording.recorder import Recorder
from serving.recording.spool import Spool
from tests.support.flaky_database import FlakyDatabase


async def record(home: Path) -> None:
    database = FlakyDatabase(Settings(home=home).resolved_database_url)
    database.away = True
    spool = Spool(home / "spool", max_bytes=2**30)
    recorder = Recorder(database, load_keyring(home), spool=spool)
    recorder.start()
    while True:
        row = Interaction(
            id=new_id(),
            created_at=utc_now(),
            input_text="a" * 500,
            structured_prompt="b",
            model_output="c",
        )
        await recorder.record(row)
        sys.stdout.write(f"{row.id}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(record(Path(sys.argv[1])))
