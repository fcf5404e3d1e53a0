"""What a workload may be called."""

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import audit, workloads
from registry.clock import new_id, utc_now
from registry.crypto import load_keyring
from registry.db import open_database
from registry.deployment import AUDIT_PURPOSE, Act, desired
from registry.errors import ConflictError, SettingsError

FIRST = string.ascii_lowercase + string.digits


@given(st.sampled_from(FIRST), st.text(FIRST + "._-", max_size=62))
def test_sound_names_are_taken(first: str, rest: str) -> None:
    if first + rest not in workloads.RESERVED:
        workloads.check_name(first + rest)


@pytest.mark.parametrize(
    "name",
    ["", "-a", ".a", "A", "a b", "a:b", "a/b", "ä", "a\n", "a" * 64, *sorted(workloads.RESERVED)],
)
def test_others_are_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="workload"):
        workloads.check_name(name)


def test_a_new_workload_is_served_by_the_base_and_audited(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'k.db'}")
    keyring = load_keyring(tmp_path)
    act = Act("test", "a test", utc_now(), keyring, new_id)
    with database.write() as session:
        workloads.add(session, act, "prompts")
    with database.write() as session, pytest.raises(ConflictError, match="exists already"):
        workloads.add(session, act, "prompts")
    with database.read() as session:
        assert [name for name, _ in workloads.created(session)] == ["prompts"]
        assert desired(session, "prompts").champion is None
        assert audit.verify(session, key=keyring.derive(AUDIT_PURPOSE)) is None
    database.close()
