"""Erasure, with everything that a person can leave behind in an installation."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from flows.context import Context
from flows.curation.dataset import build_dataset
from flows.curation.pipeline import curate
from flows.retention import run_retention
from flows.steps import PlainSteps
from registry import audit, erasure, erasure_report, interactions, keys, versions
from registry.clock import new_id, utc_now
from registry.deployment import AUDIT_PURPOSE
from registry.interactions import Feedback, Interaction
from registry.models import (
    Dataset,
    Erasure,
    ErasureEffect,
    User,
    UserInteraction,
)
from registry.settings import CurationSettings, PrivacySettings
from registry.settings_access import AuthSettings
from serving.access.tokens import make_signer, make_token
from serving.erasing import Eraser
from serving.recording import recorder as recorder_module
from serving.recording.records import seal
from serving.recording.spool import Spool
from tests.serving.conftest import Installation
from tests.serving.router import Router, running_router
from tests.support.traces import files_with, tables_with

CANARY = "kanarienvogel"
CAROL, OTHER = f"carol-{CANARY}@example.org", "dave"
CANARY_TEXT = f"Write an email about {CANARY}"


@pytest.fixture
def private(installation: Installation) -> Installation:
    """The installation with authentication on and a rehearsal file."""
    rehearsal = installation.settings.home / "rehearsal.jsonl"
    rehearsal.touch()
    settings = installation.settings.model_copy(
        update={
            "auth": AuthSettings(enabled=True),
            "curation": CurationSettings(min_quality=0, rehearsal_file=str(rehearsal)),
        }
    )
    return replace(installation, settings=settings)


@pytest.fixture
async def router(private: Installation, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Router]:
    """A router that adopts other spools when the test says so."""
    monkeypatch.setattr(recorder_module, "LOOK_EVERY_S", 3600)
    async with running_router(private.settings) as found:
        yield found


def headers(installation: Installation, user: str, role: str = "user") -> dict[str, str]:
    settings = installation.settings.auth
    signer = make_signer(settings, installation.keyring)
    token = make_token(
        signer,
        settings,
        subject=user,
        role=role,
        now=utc_now(),
        lifetime=timedelta(hours=1),
    )
    return {"Authorization": f"Bearer {token}"}


def context_of(installation: Installation) -> Context:
    return Context(
        settings=installation.settings,
        database=installation.database,
        store=installation.store,
        keyring=installation.keyring,
    )


def eraser(installation: Installation) -> Eraser:
    return Eraser(
        database=installation.database,
        keyring=installation.keyring,
        store=installation.store,
        settings=installation.settings,
    )


async def ask(router: Router, who: dict[str, str], text: str, **more: str) -> str:
    """An answer that its user likes; its interaction."""
    said = await router.client.post("/api/generate", json={"text": text}, headers=who | more)
    assert said.status_code == 200, said.text
    row_id = said.json()["interaction_id"]
    feedback = {
        "interaction_id": row_id,
        "score": 5,
        "feedback_text": f"good, says {text}",
        "corrected_output": f"Role: {text}\nTask: {text}",
    }
    rated = await router.client.post("/api/feedback", json=feedback, headers=who)
    assert rated.status_code == 200, rated.text
    return str(row_id)


def learn(installation: Installation, name: str) -> str:
    """Curate, build a dataset and register a version that learned from it."""
    found = context_of(installation)
    settings = installation.settings.curation
    curate(
        found.database,
        workload="default",
        settings=settings,
        clock=utc_now,
        new_id=new_id,
        keyring=found.keyring,
    )
    run = found.folder("runs", f"failed-{name}")
    built = build_dataset(
        found.database,
        found.store,
        workload="default",
        settings=settings,
        folder=run / "dataset",
        clock=utc_now,
        new_id=new_id,
        keyring=found.keyring,
    )
    found.store.fetch(built.digest)
    with found.database.write() as session:
        return versions.register(
            session,
            version=f"tiny-{name}",
            workload="default",
            base_model="tiny",
            adapter_digest="0" * 64,
            recipe="tiny_cpu",
            now=utc_now(),
            training_dataset_id=built.dataset_id,
        ).version


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
    spool.append([seal(rows, installation.keyring), seal(feedback, installation.keyring)])
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
    path.write_text("".join(json.dumps(r) + "\n" for r in ({"messages": turns}, others)))


def retain(installation: Installation) -> dict[str, int]:
    return run_retention(context_of(installation), steps=PlainSteps()).counts


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
        "spooled": 2,
        "quarantined": 2,
        "rehearsal": 1,
        "run_folders": 0,
        "reports": 1,
        "rate_limits": 1,
        "datasets": 1,
    }
    assert [found["name"] for found in report["versions"]] == [version]
    age_run_folders(home)
    retain(private)

    for word in (CANARY, pseudonym):
        assert tables_with(private.database, word) == []
        assert files_with(home, word) == []
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
    assert files_with(home, CAROL) == []


def age_run_folders(home: Path) -> None:
    """As if the runs had ended long ago."""
    for folder in (home / "runs").glob("*/"):
        os.utime(folder, (0, 0))


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


@pytest.mark.parametrize("policy", ["list", "retire", "retrain"])
async def test_versions_that_learned_from_it_meet_the_policy(
    router: Router, private: Installation, adapters: dict[str, Path], policy: str
) -> None:
    await ask(router, headers(private, CAROL), CANARY_TEXT)
    # Whoever asks may also be an admin.
    told = await router.client.get(
        f"/api/users/{OTHER}/export", headers=headers(private, CAROL, "admin")
    )
    assert told.status_code == 200
    version = learn(private, "one")
    clean = private.register(adapters["one"])
    private.deploy(clean)
    private.deploy(version)
    with private.database.write() as session:
        child = versions.register(
            session,
            version="child",
            workload="default",
            base_model="tiny",
            adapter_digest="1" * 64,
            recipe="tiny_cpu",
            now=utc_now(),
            parent_version=version,
        ).version
    settings = private.settings.model_copy(
        update={"privacy": PrivacySettings(erased_versions=policy)}  # type: ignore[arg-type]
    )
    installation = replace(private, settings=settings)
    report = eraser(installation).erase(CAROL, actor="test", approved_by="test")
    assert [found["name"] for found in report["versions"]] == sorted([version, child])
    desired = private.desired()
    assert desired.champion is not None
    assert desired.champion.version == (clean if policy == "retire" else version)
    asked: list[str] = []
    run_retention(context_of(installation), steps=PlainSteps(), retrain=asked.append)
    run_retention(context_of(installation), steps=PlainSteps(), retrain=asked.append)
    assert asked == (["default"] if policy == "retrain" else [])
    with private.database.read() as session:
        assert erasure.untouched_ancestor(session, version) is None
        assert all(e.done_at is not None for e in session.exec(select(ErasureEffect)))


def test_a_version_made_while_the_erasure_ran_is_found_later(private: Installation) -> None:
    log(private, "one")
    learn(private, "one")
    found = eraser(private)
    report = found.erase(CAROL, actor="test", approved_by="test")
    with private.database.write() as session:
        dataset = session.exec(select(Dataset)).one()
        assert dataset.files_deleted_at is not None
        versions.register(
            session,
            version="late",
            workload="default",
            base_model="tiny",
            adapter_digest="2" * 64,
            recipe="tiny_cpu",
            now=utc_now(),
            training_dataset_id=dataset.id,
        )
    retain(private)
    with private.database.read() as session:
        names = {e.name for e in erasure.effects(session, report["erasure_id"])}
    assert "late" in names


@pytest.mark.parametrize("step", ["_sweep_files", "delete_datasets", "carry_out_policy", "scrub"])
def test_an_erasure_that_was_cut_off_is_finished_by_retention(
    private: Installation, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    log(private, "one")
    learn(private, "one")
    with monkeypatch.context() as patch:
        patch.setattr(Eraser, step, _cut_off)
        with pytest.raises(KeyboardInterrupt):
            eraser(private).erase(CAROL, actor="test", approved_by="test")
    age_run_folders(private.settings.home)
    retain(private)
    assert tables_with(private.database, CANARY) == []
    assert files_with(private.settings.home, CANARY) == []
    with private.database.read() as session:
        row = session.exec(select(Erasure)).one()
        assert row.completed_at is not None
        assert row.user_id is None
        assert row.scrubbed_at is not None


def _cut_off(*_arguments: object, **_named: object) -> None:
    raise KeyboardInterrupt


def log(installation: Installation, name: str) -> None:
    """One answer that was liked, without a router."""
    item = Interaction(
        id=name,
        created_at=utc_now(),
        input_text=CANARY_TEXT,
        structured_prompt=f"Role: {CANARY}",
        model_output=f"Role: {CANARY}",
        external_user_id=CAROL,
        quality_score=0.9,
        ip_address="10.0.0.1",
    )
    with installation.database.write() as session:
        interactions.log(session, [item], keyring=installation.keyring)
        interactions.add_feedback(
            session,
            Feedback(interaction_id=name, score=5, text=CANARY),
            now=utc_now(),
            new_id=new_id,
        )
