"""Fields under several keys: rotated, sealed again, and never opened with the wrong key."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlmodel import select

from registry import audit, interactions, key_rotation, keys, texts
from registry.crypto import Keyring, load_keyring
from registry.db import Database
from registry.deployment import AUDIT_PURPOSE, Act
from registry.errors import KeyringError
from registry.interactions import Feedback, Interaction
from registry.key_rotation import check_keys, reseal, retire, rotate, uses
from registry.models import ApiKey, ClientMetadata, User, UserInteraction
from tests.registry.conftest import NOW
from tests.support.traces import files_with

NUM = 12
SECRET = "a secret text"
PLAIN = Keyring(bytes(32))
SEALING = PLAIN.with_texts(True)


def fill(database: Database, act: Act, *, start: int = 0) -> None:
    with database.write() as session:
        for number in range(start, start + NUM):
            item = Interaction(
                id=f"i{number:03}",
                created_at=NOW,
                input_text=f"{SECRET} {number}",
                messages=[{"role": "user", "content": f"{SECRET} {number}"}],
                structured_prompt="b",
                model_output="c",
                external_user_id=f"user {number}",
                ip_address="10.0.0.1",
                user_agent="a browser",
            )
            interactions.log(session, [item], keyring=act.keyring)
        keys.create(session, act, name="app", role="user", subject=f"user {start}")


def check_readable(database: Database, keyring: Keyring, *, number: int = NUM) -> None:
    """Every value can still be read, by whoever has the keys."""
    with database.read() as session:
        rows = session.exec(select(UserInteraction).order_by(UserInteraction.id)).all()
        assert len(rows) == number
        for index, row in enumerate(rows):
            texts.reveal(row, keyring)
            assert row.input_text == f"{SECRET} {index}"
            assert row.messages == [{"role": "user", "content": f"{SECRET} {index}"}]
            user = session.get_one(User, row.user_id)
            place = f"users.external_id:{user.id}"
            assert keyring.decrypt(user.external_id_encrypted or "", context=place)
            client = session.get_one(ClientMetadata, row.id)
            place = f"client_metadata.ip_address:{row.id}"
            assert keyring.decrypt(client.ip_address_encrypted or "", context=place) == "10.0.0.1"
        for key in session.exec(select(ApiKey)):
            assert keys.subject_of(key, keyring) is not None


@pytest.fixture
def at(act: Callable[[str], Act], tmp_path: Path) -> Act:
    """Whoever rotates, with texts sealed."""
    return replace(act("a test"), keyring=load_keyring(tmp_path / "keys", seals_texts=True))


def test_rotation_brings_every_value_under_the_new_key(database: Database, at: Act) -> None:
    fill(database, at)
    old = at.keyring.fields.current.id
    before = (at.keyring.pseudonym("ann"), at.keyring.derive(AUDIT_PURPOSE))
    done = rotate(database, at, batch_rows=5)
    assert done.is_new
    assert done.key_id != old
    with database.read() as session:
        assert uses(session, old) == 0
        assert uses(session, done.key_id) == done.num_values >= NUM * 7
        assert audit.verify(session, key=at.keyring.derive(AUDIT_PURPOSE)) is None
    check_readable(database, at.keyring)
    assert (at.keyring.pseudonym("ann"), at.keyring.derive(AUDIT_PURPOSE)) == before


@pytest.mark.parametrize("step", range(1, 12, 2))
def test_a_rotation_killed_anywhere_goes_on_without_another_key(
    database: Database, at: Act, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    fill(database, at)
    left = iter(range(step * 4))

    def dies(*arguments: object) -> int:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return original(*arguments)  # type: ignore[arg-type]

    original = key_rotation._reseal_value
    with monkeypatch.context() as patch:
        patch.setattr(key_rotation, "_reseal_value", dies)
        with pytest.raises(KeyboardInterrupt):
            rotate(database, at, batch_rows=5)
    fresh = replace(at, keyring=load_keyring_like(at))
    check_readable(database, fresh.keyring)
    done = rotate(database, fresh)
    assert not done.is_new
    assert len(fresh.keyring.fields.ids) == 2
    with database.read() as session:
        assert uses(session, fresh.keyring.fields.ids[0]) == 0
    check_readable(database, fresh.keyring)


def load_keyring_like(at: Act) -> Keyring:
    """The same keys, as another process reads them."""
    folder = at.keyring.fields._folder
    assert folder is not None
    return load_keyring(folder.parent, seals_texts=True)


def test_a_running_process_takes_the_new_key_up_by_itself(database: Database, at: Act) -> None:
    router = load_keyring_like(at)
    router.encrypt("before", context="c")
    done = rotate(database, at)
    assert router.encrypt("after", context="c").startswith(done.key_id)


def test_a_key_is_deleted_when_nothing_needs_it(database: Database, at: Act) -> None:
    fill(database, at)
    rotate(database, at)
    second = rotate(database, at).key_id
    third = rotate(database, at).key_id
    assert retire(database, at) == []
    later = replace(at, now=at.now + timedelta(hours=1))
    assert second not in retire(database, later, in_files=frozenset({second}))
    assert second in at.keyring.fields.ids
    assert list(retire(database, later)) == [second]
    assert load_keyring_like(at).fields.ids == (at.keyring.key_id, third)
    check_keys(database, load_keyring_like(at), now=NOW)
    check_readable(database, at.keyring)


def test_the_file_of_a_retired_key_goes_though_its_deletion_was_cut_off(
    database: Database, at: Act
) -> None:
    rotate(database, at)
    second = rotate(database, at).key_id
    rotate(database, at)
    folder = at.keyring.fields._folder
    assert folder is not None
    (path,) = folder.glob(f"*{second}*")
    text = path.read_text()
    later = replace(at, now=at.now + timedelta(hours=1))
    assert second in retire(database, later)
    path.write_text(text)
    assert retire(database, later) == []
    assert not path.exists()


def test_what_a_machine_without_the_new_key_wrote_is_read_with_the_old_file_put_back(
    database: Database, at: Act, tmp_path: Path
) -> None:
    second = rotate(database, at).key_id
    shutil.copytree(tmp_path / "keys", tmp_path / "elsewhere")
    elsewhere = replace(at, keyring=load_keyring(tmp_path / "elsewhere", seals_texts=True))
    third = rotate(database, at).key_id
    later = replace(at, now=at.now + timedelta(hours=1))
    assert second in retire(database, later)
    with pytest.raises(KeyringError, match=f"key {third} is missing"):
        check_keys(database, elsewhere.keyring, now=NOW)
    fill(database, elsewhere)  # it was running by then
    with pytest.raises(KeyringError, match=f"was encrypted with key {second}"):
        check_readable(database, at.keyring)
    (file,) = (tmp_path / "elsewhere" / "keys").glob(f"*-{second}.key")
    shutil.copy2(file, tmp_path / "keys" / "keys")
    assert retire(database, later) == []
    check_readable(database, load_keyring_like(at))
    reseal(database, load_keyring_like(at))
    retire(database, later)
    assert load_keyring_like(at).fields.ids == (at.keyring.key_id, third)
    check_readable(database, load_keyring_like(at))


def test_texts_that_were_plain_are_sealed_again_on_request(
    database: Database, at: Act, tmp_path: Path
) -> None:
    fill(database, replace(at, keyring=at.keyring.with_texts(False)))
    if database.engine.dialect.name == "sqlite":
        assert files_with(tmp_path, SECRET)
    assert reseal(database, at.keyring) == NUM * 4
    assert reseal(database, at.keyring) == 0
    check_readable(database, at.keyring)
    check_readable(database, at.keyring.with_texts(False))


def test_sealed_texts_of_feedback_come_back_and_late_ones_change_nothing(
    database: Database, at: Act, new_id: Callable[[], str]
) -> None:
    fill(database, at)
    with database.write() as session:
        for text, minutes in (("first", 2), ("late", 1)):
            feedback = Feedback(
                interaction_id="i000",
                text=text,
                corrected_output=f"corrected {text}",
                given_at=NOW + timedelta(minutes=minutes),
            )
            interactions.add_feedback(session, feedback, now=NOW, new_id=new_id, keyring=at.keyring)
    with database.read() as session:
        row = session.get_one(UserInteraction, "i000")
        assert (row.feedback_text or "").startswith(texts.MARK)
        texts.reveal(row, at.keyring)
        assert (row.feedback_text, row.corrected_output) == ("first", "corrected first")
        assert not session.dirty


def test_another_master_key_is_refused_in_one_line(
    database: Database, at: Act, tmp_path: Path
) -> None:
    check_keys(database, at.keyring, now=NOW)
    with pytest.raises(KeyringError, match=r"secret\.key .* put the right") as error:
        check_keys(database, load_keyring(tmp_path / "new"), now=NOW)
    assert "\n" not in str(error.value)


def test_a_database_of_before_the_check_is_not_taken_over(
    database: Database, at: Act, tmp_path: Path
) -> None:
    fill(database, at)
    with pytest.raises(KeyringError, match="put the right"):
        check_keys(database, load_keyring(tmp_path / "new"), now=NOW)


def test_a_missing_key_of_fields_is_named(database: Database, at: Act) -> None:
    done = rotate(database, at)
    folder = at.keyring.fields._folder
    assert folder is not None
    (file,) = folder.iterdir()
    file.rename(folder.parent / "elsewhere")
    with pytest.raises(KeyringError, match=done.key_id):
        check_keys(database, load_keyring_like(at), now=NOW)


def test_a_key_file_with_another_key_is_refused(database: Database, at: Act) -> None:
    rotate(database, at)
    folder = at.keyring.fields._folder
    assert folder is not None
    (file,) = folder.iterdir()
    file.write_text("00" * 32)
    with pytest.raises(KeyringError, match=file.name):
        load_keyring_like(at)


@given(st.text())
def test_what_is_sealed_comes_back_and_what_is_not_stays(text: str) -> None:
    place = "user_interactions.input_text:1"
    for keyring in (PLAIN, SEALING):
        stored = texts.seal(text, place=place, keyring=keyring)
        assert texts.unseal(stored, place=place, keyring=PLAIN) == text
    assert not text or texts.seal(text, place=place, keyring=SEALING) != text


def test_a_text_that_looks_sealed_is_sealed() -> None:
    place = "feedback_events.text:1"
    stored = texts.seal("enc1:00000000.AAAA", place=place, keyring=PLAIN)
    assert texts.unseal(stored, place=place, keyring=PLAIN) == "enc1:00000000.AAAA"


def test_a_moved_text_and_a_missing_keyring_are_refused() -> None:
    stored = texts.seal("a", place="feedback_events.text:1", keyring=SEALING)
    with pytest.raises(KeyringError, match="altered or moved"):
        texts.unseal(stored, place="feedback_events.text:2", keyring=PLAIN)
    with pytest.raises(KeyringError, match="without a keyring"):
        texts.unseal(stored, place="feedback_events.text:1", keyring=None)
