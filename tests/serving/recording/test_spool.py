"""The spool: whole lines come back in order, whatever dies and wherever a file is cut."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.clock import utc_now
from registry.crypto import Keyring
from registry.interactions import Feedback, Interaction
from serving.errors import OverloadedError, RecordError
from serving.recording import spool as spool_module
from serving.recording.records import Item, seal, unseal
from serving.recording.spool import Spool

KEYRING = Keyring(b"k" * 32)
ROOM = 10_000


def taken(spool: Spool, count: int = 3) -> list[bytes]:
    """Everything that waits, taken in portions."""
    found = []
    while lines := spool.peek(count):
        found += lines
        spool.drop(lines)
    return found


def test_lines_come_back_in_order_across_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "SEGMENT_BYTES", 10)
    spool = Spool(tmp_path, max_bytes=ROOM)
    lines = [b"line %d\n" % number for number in range(20)]
    for start in range(0, 20, 3):
        spool.append(lines[start : start + 3])
    assert spool.rows == 20
    assert len(list(tmp_path.glob("*/*.spool"))) > 3
    assert taken(spool) == lines
    assert (spool.rows, spool.size_bytes) == (0, 0)
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_past_its_bound_it_takes_nothing_and_loses_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=20)
    spool.append([b"x" * 14 + b"\n"])
    assert spool.has_room
    with pytest.raises(OverloadedError):
        spool.append([b"y" * 14 + b"\n"])
    assert taken(spool) == [b"x" * 14 + b"\n"]
    spool.append([b"y" * 14 + b"\n"])
    assert spool.rows == 1


def test_the_living_keep_their_spool_and_the_dead_are_adopted(tmp_path: Path) -> None:
    one, two = Spool(tmp_path, max_bytes=ROOM), Spool(tmp_path, max_bytes=ROOM)
    one.append([b"1\n", b"2\n"])
    two.append([b"3\n"])
    one.park([b"parked\n"])
    assert two.adopt() == 0
    assert two.others_wait()
    one.close()
    assert two.adopt() == 3
    assert not two.others_wait()
    assert taken(two) == [b"3\n", b"1\n", b"2\n", b"parked\n"]
    two.close()
    assert list(tmp_path.iterdir()) == []


@settings(deadline=None)
@given(cut=st.integers(0, 11), taken_before=st.integers(0, 2))
def test_a_file_that_was_cut_gives_back_its_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, cut: int, taken_before: int
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    dead = Spool(folder, max_bytes=ROOM)
    lines = [b"aaa\n", b"bbb\n", b"ccc\n"]
    dead.append(lines)
    dead.drop(dead.peek(taken_before))
    dead.close()
    (path,) = folder.glob("*/*.spool")
    path.write_bytes(path.read_bytes()[:cut])
    living = Spool(folder, max_bytes=ROOM)
    living.adopt()
    # What was taken before the crash is offered again: taking it twice must do no harm.
    assert taken(living) == lines[: cut // 4]


def write_some(file: int, data: bytes) -> None:
    """What a disk that becomes full does."""
    spool_module.os.write(file, data[:4])
    raise OSError(28, "No space left on device")


def test_a_disk_that_fails_once_costs_what_it_refused_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, max_bytes=ROOM)
    spool.append([b"kept\n"])
    with monkeypatch.context() as broken:
        broken.setattr(spool_module, "_write", write_some)
        with pytest.raises(OSError, match="No space"):
            spool.append([b"refused\n"])
    spool.append([b"later\n"])
    spool.close()
    living = Spool(tmp_path, max_bytes=ROOM)
    living.adopt()
    assert taken(living) == [b"kept\n", b"later\n"]


def test_a_file_that_cannot_be_removed_holds_up_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "SEGMENT_BYTES", 1)
    spool = Spool(tmp_path, max_bytes=ROOM)
    lines = [b"1\n", b"2\n", b"3\n"]
    for line in lines:
        spool.append([line])

    def fail(*_path: Path, **_options: bool) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(Path, "unlink", fail)
        assert taken(spool) == lines
    assert (spool.rows, spool.size_bytes) == (0, 0)
    spool.append([b"4\n"])
    assert taken(spool) == [b"4\n"]
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_quarantine_says_why(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=ROOM)
    spool.append([b"bad\n"])
    spool.quarantine(b"bad\n", "nobody wants it")
    text = (tmp_path / "quarantine.jsonl").read_text()
    assert "nobody wants it" in text
    assert '"bad"' in text


def test_a_full_disk_leaves_no_part_of_a_line_in_the_quarantine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, max_bytes=ROOM)
    spool.quarantine(b"first\n", "nobody wants it")
    before = (tmp_path / "quarantine.jsonl").read_text()
    with monkeypatch.context() as broken:
        broken.setattr(spool_module, "_write", write_some)
        with pytest.raises(OSError, match="No space"):
            spool.quarantine(b"second\n", "nobody wants it")
    assert (tmp_path / "quarantine.jsonl").read_text() == before


ROW = Interaction(
    id="i1",
    created_at=utc_now(),
    input_text="secret text \ud800",
    structured_prompt="b",
    model_output="c",
    external_user_id="user-123",
    messages=[{"role": "user", "content": "x"}],
    ip_address="10.1.2.3",
)


@pytest.mark.parametrize(
    "item", [(ROW,), (ROW, ROW), Feedback(interaction_id="i1", score=4, given_at=utc_now())]
)
def test_a_record_survives_its_line_and_shows_nobody(item: Item) -> None:
    line = seal(item, KEYRING)
    assert unseal(line, KEYRING) == item
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    for private in (b"user-123", b"10.1.2.3", b"secret"):
        assert private not in line


def test_an_altered_or_foreign_line_is_refused() -> None:
    line = seal((ROW,), KEYRING)
    with pytest.raises(RecordError, match="checksum"):
        unseal(line[:30] + bytes([line[30] ^ 1]) + line[31:], KEYRING)
    with pytest.raises(RecordError, match="checksum"):
        unseal(b"\n", KEYRING)
    with pytest.raises(RecordError, match="key"):
        unseal(line, Keyring(b"o" * 32))
