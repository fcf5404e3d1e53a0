"""What is read out of spools and quarantine, whatever state their files are in."""

from __future__ import annotations

from pathlib import Path

from registry.clock import utc_now
from registry.crypto import Keyring
from registry.interactions import Feedback
from serving.recording.records import Item, seal
from serving.recording.spool import QUARANTINE, Spool
from serving.recording.sweeping import keys_in_files, sweep_quarantine

KEYRING = Keyring(b"k" * 32)


def say(word: str) -> bytes:
    return seal(Feedback(interaction_id="i1", text=word, given_at=utc_now()), KEYRING)


def all_of(item: Item) -> Item:
    return item


def test_a_line_that_a_crash_has_torn_takes_no_other_with_it(tmp_path: Path) -> None:
    spool, path = Spool(tmp_path, max_bytes=10_000), tmp_path / QUARANTINE
    for word in ("before", "torn"):
        spool.quarantine(say(word), "nobody wants it")
    path.write_bytes(path.read_bytes()[:-40])
    spool.quarantine(say("after"), "nobody wants it")
    assert keys_in_files(tmp_path) == {KEYRING.fields.current.id}
    assert sweep_quarantine(tmp_path, KEYRING, all_of) == 1
    assert path.read_bytes().count(b"\n") == 2
    assert sweep_quarantine(tmp_path, KEYRING, all_of) == 0
