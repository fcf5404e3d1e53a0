import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.crypto import Keyring, load_keyring
from registry.errors import KeyringError

KEYRING = Keyring(bytes(range(32)))


@given(st.text())
def test_decryption_undoes_encryption_in_its_place_only(text: str) -> None:
    sealed = KEYRING.encrypt(text, context="users.name:1")
    assert KEYRING.decrypt(sealed, context="users.name:1") == text
    with pytest.raises(KeyringError, match="altered or moved"):
        KEYRING.decrypt(sealed, context="users.name:2")


def test_equal_texts_are_sealed_differently() -> None:
    assert KEYRING.encrypt("a", context="c") != KEYRING.encrypt("a", context="c")


def test_another_key_is_named() -> None:
    sealed = KEYRING.encrypt("a", context="c")
    with pytest.raises(KeyringError, match=KEYRING.key_id):
        Keyring(bytes(32)).decrypt(sealed, context="c")


def test_pseudonyms_need_the_key() -> None:
    assert KEYRING.pseudonym("ann") == KEYRING.pseudonym("ann")
    assert KEYRING.pseudonym("ann") != Keyring(bytes(32)).pseudonym("ann")
    assert KEYRING.pseudonym("\ud800") != KEYRING.pseudonym("ann")


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: load_keyring(tmp_path).master, range(16)))
    assert len(keys) == 1
    assert stat.S_IMODE(os.stat(tmp_path / "secret.key").st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret.key"]


def test_a_broken_key_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "secret.key").write_text("zz")
    with pytest.raises(KeyringError, match=r"secret\.key"):
        load_keyring(tmp_path)


def test_the_key_is_not_shown() -> None:
    assert str(KEYRING.master) not in repr(KEYRING)
