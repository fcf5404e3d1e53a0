"""The keys in a backup: all that its rows need, though keys are retired while it is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.backup_manifest import key_faults
from registry.errors import BackupError
from registry.models import ClientMetadata
from tests.registry.test_backup import Make, keys, make, world
from tests.registry.test_restore import log_sealed, rotate
from tests.support.backups import Installation, fill

__all__ = ["make", "world"]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize("moment", ["the rows", "the artifacts"])
def test_a_key_that_is_retired_meanwhile_is_in_it(
    make: Make, tmp_path: Path, kind: str, moment: str
) -> None:
    world = make("home", kind)
    fill(world)
    rotate(world, days=1)
    log_sealed(world)
    (needed,) = keys(world.home)

    def others_rotate(line: str) -> None:
        is_now = needed.exists() and (moment == "the rows" or line.endswith("artifacts"))
        if is_now:
            rotate(world, days=100)

    manifest = world.back_up(tmp_path / "backup", include_keys=True, tell=others_rotate)
    assert not needed.exists()
    (later,) = keys(world.home)
    found = {path.name for path in keys(tmp_path / "backup" / "keys")}
    assert found == {needed.name, later.name}
    assert key_faults(tmp_path / "backup", manifest) == []
    new = make("new", "sqlite")
    new.restore(tmp_path / "backup")
    with new.database.read() as session:
        sealed = session.get_one(ClientMetadata, "sealed").ip_address_encrypted or ""
    place = "client_metadata.ip_address:sealed"
    assert new.keyring.decrypt(sealed, context=place) == "10.0.0.1"


def test_a_key_that_is_not_in_it_or_damaged_is_named(world: Installation, tmp_path: Path) -> None:
    rotate(world, days=1)
    log_sealed(world)
    folder = tmp_path / "backup"
    manifest = world.back_up(folder, include_keys=True)
    assert key_faults(folder, manifest) == []
    (path,) = keys(folder / "keys")
    key_id = path.stem.partition("-")[2]
    path.write_text("damaged")
    assert "cannot read the key in" in key_faults(folder, manifest)[0]
    path.unlink()
    assert f"key {key_id} is missing" in key_faults(folder, manifest)[0]
    (folder / "keys" / "secret.key").unlink()
    assert "cannot read the key in" in key_faults(folder, manifest)[0]
    without = world.back_up(tmp_path / "without")
    assert key_faults(tmp_path / "without", without) == []


def test_a_backup_that_would_lack_a_key_is_not_made(world: Installation, tmp_path: Path) -> None:
    rotate(world, days=1)
    log_sealed(world)
    (path,) = keys(world.home)
    path.unlink()
    with pytest.raises(BackupError, match=r"would not be whole: key \w{8} is missing"):
        world.back_up(tmp_path / "backup", include_keys=True)
    assert not (tmp_path / "backup").exists()
