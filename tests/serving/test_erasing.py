"""Erasure, with everything that a person can leave behind in an installation."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlmodel import select

from registry import audit, erasure_report, keys
from registry.clock import utc_now
from registry.deployment import AUDIT_PURPOSE
from registry.interactions import Feedback, Interaction
from registry.models import (
    Erasure,
    FeedbackEvent,
    User,
    UserInteraction,
)
from serving.access.window_store import forget_ended
from serving.recording.records import seal
from serving.recording.spool import Spool
from tests.serving.conftest import Installation
from tests.serving.erasures import (
    CANARY,
    CANARY_TEXT,
    CAROL,
    OTHER,
    age_run_folders,
    ask,
    eraser,
    headers,
    learn,
    private,
    retain,
    router,
)
from tests.serving.router import Router
from tests.support.traces import files_with, tables_with

__all__ = ["private", "router"]


def leave_files(installation: Installation, row_id: str) -> None:
    """A dead router's spool, a quarantine, a rehearsal file: of both users."""
    spool = Spool(installation.settings.home / "spool", max_bytes=10**6)
    rows = tuple(
        Interaction(
            id=f"spooled-{user}",
            created_at=utc_now(),
            input_text=CANARY_TEXT,
            structured_prompt="",
            model_output="",
            external_user_id=user,
        )
        for user in (CAROL, OTHER)
    )
    feedback = Feedback(interaction_id=row_id, text=CANARY, id="f", given_at=utc_now())
    review = replace(
        feedback,
        interaction_id=f"spooled-{OTHER}",
        text="well",
        id="g",
        rater_id=installation.keyring.pseudonym(CAROL),
    )
    spool.append([seal(item, installation.keyring) for item in (rows, feedback, review)])
    spool.quarantine(seal(rows[:1], installation.keyring), "refused")
    spool.quarantine(b"unreadable", "its checksum is wrong")
    spool.close()
    with installation.database.read() as session:
        row = session.get_one(UserInteraction, row_id)
        turns = [
            {"role": "user", "content": row.input_text},
            {"role": "assistant", "content": row.model_output},
        ]
    others = {"messages": [turns[0] | {"content": "hello"}, turns[1] | {"content": "hi"}]}
    path = Path(str(installation.settings.curation.rehearsal_file))
    theirs = {"messages": turns, "note": "what ends a line elsewhere\u2028stands in a text here"}
    records = (json.dumps(record, ensure_ascii=False) + "\n" for record in (theirs, others))
    path.write_text("".join(records), encoding="utf-8")


async def test_after_an_erasure_no_file_and_no_table_knows_the_user(
    router: Router, private: Installation
) -> None:
    home = private.settings.home
    carol, dave = headers(private, CAROL), headers(private, OTHER)
    row_id = await ask(router, carol, CANARY_TEXT, **{"Idempotency-Key": "once"})
    others = await ask(router, dave, "Write an email about cats")
    chat = {"model": "kalimtak", "messages": [{"role": "user", "content": CANARY_TEXT}]}
    assert (
        await router.client.post("/v1/chat/completions", json=chat, headers=carol)
    ).status_code == 200
    with private.database.write() as session:
        keys.create(session, private.act(), name="app", role="user", subject=CAROL)
    # Whoever asks may also be an admin.
    told = await router.client.get(
        f"/api/users/{OTHER}/export", headers=headers(private, CAROL, "admin")
    )
    assert told.status_code == 200
    version = learn(private, "one")
    pseudonym = private.keyring.pseudonym(CAROL)
    limited = private.keyring.pseudonym(f"subject:{CAROL}")
    leave_files(private, row_id)
    (home / "reports").mkdir(exist_ok=True)
    (home / "reports" / "curation-default-1.html").write_text(CANARY, encoding="utf-8")
    before = files_with(home, CANARY)
    for place in ("kalimtak.db", "artifacts/", "cache/", "runs/", "rehearsal.jsonl"):
        assert any(found.startswith(place) for found in before), place
    assert {"user_interactions", "training_data", "feedback_events"} <= set(
        tables_with(private.database, CANARY)
    )
    assert {"users", "idempotency_keys"} <= set(tables_with(private.database, pseudonym))

    erased = await router.client.delete(f"/api/users/{CAROL}", headers=carol)
    assert erased.status_code == 200, erased.text
    report = erased.json()
    assert report["rows"]["user_interactions"] == 2
    assert report["rows"]["api_keys"] == report["rows"]["actors"] == 1
    assert report["files"] == {
        "spooled": 3,
        "quarantined": 2,
        "rehearsal": 1,
        "run_folders": 0,
        "reports": 1,
        "datasets": 1,
    }
    assert [found["name"] for found in report["versions"]] == [version]
    age_run_folders(home)
    retain(private)

    for word in (CANARY, pseudonym):
        assert tables_with(private.database, word) == []
        assert files_with(home, word) == []
    assert files_with(home / "run", limited) != []  # else it would begin anew
    assert forget_ended(home / "run", now=time.time() + 3600) > 0
    assert files_with(home / "run", limited) == []
    with private.database.read() as session:
        assert session.get(UserInteraction, others) is not None
        row = session.get_one(Erasure, report["erasure_id"])
        assert row.scrubbed_at is not None
        assert erasure_report.is_genuine(row.report, private.keyring)
        assert audit.verify(session, key=private.keyring.derive(AUDIT_PURPOSE)) is None
    assert json.loads(Path(private.settings.curation.rehearsal_file or "").read_text())
    await drain(router)
    with private.database.read() as session:
        assert session.get(UserInteraction, f"spooled-{OTHER}") is not None
        assert session.get_one(FeedbackEvent, "g").text == "well"
    assert files_with(home, CAROL) == []
    assert tables_with(private.database, pseudonym) == []


async def drain(router: Router) -> None:
    """Have the router adopt and replay what the dead one left."""
    recorder: Any = router.service.recorder
    await recorder._look()


async def test_only_the_user_and_admins_may(router: Router, private: Installation) -> None:
    for method, path in (("DELETE", ""), ("GET", "/export"), ("GET", "/consent")):
        url = f"/api/users/{CAROL}{path}"
        said = await router.client.request(method, url, headers=headers(private, OTHER))
        assert said.status_code == 403
        assert (await router.client.request(method, url)).status_code == 401
        said = await router.client.request(method, url, headers=headers(private, "root", "admin"))
        assert said.status_code == 200
    with private.database.read() as session:
        assert session.exec(select(Erasure.approved_by)).all() == ["root"]


async def test_a_request_in_flight_and_an_old_file_bring_nobody_back(
    router: Router, private: Installation
) -> None:
    carol = headers(private, CAROL)
    asked_at = utc_now() - timedelta(seconds=1)
    await ask(router, carol, CANARY_TEXT)
    eraser(private).erase(CAROL, actor="test", approved_by="test")
    late = Interaction(
        id="late",
        created_at=utc_now(),
        asked_at=asked_at,
        input_text=CANARY_TEXT,
        structured_prompt="",
        model_output="",
        external_user_id=CAROL,
    )
    await router.service.recorder.record(late, replace(late, id="o", external_user_id=OTHER))
    with private.database.read() as session:
        assert session.exec(select(UserInteraction.id)).all() == ["o"]
        assert len(session.exec(select(User.id)).all()) == 1


async def test_who_comes_back_is_new(router: Router, private: Installation) -> None:
    carol = headers(private, CAROL)
    await ask(router, carol, CANARY_TEXT)
    url = f"/api/users/{CAROL}"
    await router.client.put(f"{url}/consent", json={"consent": "opt_out"}, headers=carol)
    await router.client.delete(url, headers=carol)
    row_id = await ask(router, carol, "Write a poem")
    history = (await router.client.get(f"/api/history/{CAROL}", headers=carol)).json()
    assert [item["interaction_id"] for item in history["interactions"]] == [row_id]
    consent = await router.client.get(f"{url}/consent", headers=carol)
    assert consent.json()["consent"] == "granted"
    await router.client.delete(url, headers=carol)
    with private.database.read() as session:
        assert len(session.exec(select(Erasure.id)).all()) == 2
        assert session.exec(select(UserInteraction.id)).all() == []
