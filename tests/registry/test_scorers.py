from collections.abc import Callable

import pytest
from sqlmodel import Session

from registry import audit, scorers
from registry.crypto import Keyring
from registry.db import Database
from registry.deployment import AUDIT_PURPOSE, Act
from registry.errors import NotFoundError
from registry.scorers import ActiveRow

MakeAct = Callable[[str], Act]


def add(session: Session, act: Act, version: str) -> None:
    scorers.add(
        session,
        act,
        version=version,
        workload="default",
        digest=f"digest of {version}",
        metrics={},
    )


def test_one_scorer_at_a_time_is_active_and_every_change_is_audited(
    database: Database, act: MakeAct, keyring: Keyring
) -> None:
    with database.write() as session:
        add(session, act("kept"), "one")
        add(session, act("kept"), "two")
        assert scorers.active(session) == {}
        scorers.activate(session, act("it passed"), "one")
    with database.write() as session:
        scorers.activate(session, act("it is better"), "two")
        assert scorers.active(session) == {"default": ActiveRow("two", "digest of two")}
        assert scorers.get(session, "one").status_reason == "two took over"
        scorers.deactivate(session, act("a trial"), workload="default")
        assert scorers.active(session) == {}
        assert audit.verify(session, key=keyring.derive(AUDIT_PURPOSE)) is None
        shown = [row.version for row in scorers.list_scorers(session, workload="default")]
    assert sorted(shown) == ["one", "two"]


def test_what_is_not_there_cannot_be_activated_or_stopped(database: Database, act: MakeAct) -> None:
    with database.write() as session:
        with pytest.raises(NotFoundError, match="no scorer 'gone'"):
            scorers.activate(session, act("?"), "gone")
        with pytest.raises(NotFoundError, match="no fitted scorer is active"):
            scorers.deactivate(session, act("?"), workload="default")
