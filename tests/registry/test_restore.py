"""What a restore takes along from the installation as it is: its keys, erasures under way."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlmodel import select

from registry import erasure, key_rotation
from registry.errors import BackupError
from registry.interactions import Interaction, log
from registry.models import ClientMetadata, Erasure
from tests.registry.test_backup import Make, make, world
from tests.support.backups import LATER, NOW, Installation

__all__ = ["make", "world"]


def log_sealed(world: Installation) -> None:
    """An answer whose client's address is encrypted with the current key."""
    item = Interaction(
        id="sealed",
        created_at=NOW,
        input_text="x",
        structured_prompt="x",
        model_output="x",
        ip_address="10.0.0.1",
    )
    with world.database.write() as session:
        log(session, [item], keyring=world.keyring)


def rotate(world: Installation, *, days: int) -> None:
    """A new key takes the place of the one before, which is retired."""
    act = world.act("rotated", NOW + timedelta(days=days))
    key_rotation.rotate(world.database, act)
    key_rotation.retire(world.database, world.act("retired", act.now + key_rotation.RETIRE_AFTER))


def test_a_backup_of_before_a_rotation_brings_its_keys_along(
    world: Installation, tmp_path: Path
) -> None:
    rotate(world, days=1)
    log_sealed(world)
    world.back_up(tmp_path / "with", include_keys=True)
    world.back_up(tmp_path / "without")
    rotate(world, days=100)
    assert len(list((world.home / "keys").iterdir())) == 1
    with pytest.raises(BackupError, match=r"encrypted with key \w{8}, which is not here"):
        world.restore(tmp_path / "without", force=True)
    (path,) = (tmp_path / "with" / "keys" / "keys").iterdir()
    kept = path.read_text()
    path.write_text("damaged")
    with pytest.raises(BackupError, match="cannot read the key in"):
        world.restore(tmp_path / "with", force=True)
    assert len(list((world.home / "keys").iterdir())) == 1
    path.write_text(kept)
    world.restore(tmp_path / "with", force=True)
    key_rotation.check_keys(world.database, world.keyring, now=LATER)
    with world.database.read() as session:
        row = session.get_one(ClientMetadata, "sealed")
        place = "client_metadata.ip_address:sealed"
        assert world.keyring.decrypt(row.ip_address_encrypted or "", context=place) == "10.0.0.1"


def test_a_key_that_nothing_in_the_backup_needs_is_not_asked_for(
    world: Installation, tmp_path: Path
) -> None:
    rotate(world, days=1)
    key_rotation.rotate(world.database, world.act("rotated", NOW + timedelta(days=100)))
    world.back_up(tmp_path / "backup")  # before the key of the first rotation is retired
    later = world.act("retired", NOW + timedelta(days=100) + key_rotation.RETIRE_AFTER)
    assert key_rotation.retire(world.database, later) != []
    world.restore(tmp_path / "backup", force=True)
    key_rotation.check_keys(world.database, world.keyring, now=LATER)


def test_an_erasure_under_way_that_cannot_be_read_is_not_lost_silently(
    make: Make, tmp_path: Path
) -> None:
    world, other = make("erasing", "sqlite"), make("other", "sqlite")
    for one in (world, other):
        one.database.upgrade()
    world.back_up(tmp_path / "backup", include_keys=True)
    with world.database.write() as session:
        at = other.act("asked to")
        erasure.begin(session, at, "alice", approved_by="bob", policy="retire")
    with pytest.raises(BackupError, match=r"is under way in the database .* cannot be read"):
        world.restore(tmp_path / "backup", force=True)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_an_erasure_that_was_under_way_goes_on_after_a_restore(
    make: Make, tmp_path: Path, kind: str
) -> None:
    world = make("erasing", kind)
    world.database.upgrade()
    world.back_up(tmp_path / "before")
    with world.database.write() as session:
        at = world.act("asked to")
        erasure.begin(session, at, "alice", approved_by="bob", policy="retire")
    world.back_up(tmp_path / "meanwhile")
    for name in ("meanwhile", "before"):
        done = world.restore(tmp_path / name, force=True)
        assert done.erasures.num_pending == 1
        with world.database.read() as session:
            (row,) = session.exec(select(Erasure)).all()
            assert erasure.external_id_of(row, world.keyring) == "alice"
            assert (row.approved_by, row.policy) == ("bob", "retire")
