"""People who leave traces, and what learns from them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from flows.context import Context
from flows.curation.dataset import build_dataset
from flows.curation.pipeline import curate
from flows.retention import run_retention
from flows.steps import PlainSteps
from registry import interactions, versions
from registry.clock import new_id, utc_now
from registry.interactions import Feedback, Interaction
from registry.settings import CurationSettings
from registry.settings_access import AuthSettings
from serving.access.tokens import make_signer, make_token
from serving.erasing import Eraser
from serving.recording import recorder as recorder_module
from tests.serving.conftest import Installation
from tests.serving.router import Router, running_router

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


def retain(installation: Installation) -> dict[str, int]:
    return run_retention(context_of(installation), steps=PlainSteps()).counts


def age_run_folders(home: Path) -> None:
    """As if the runs had ended long ago."""
    for folder in (home / "runs").glob("*/"):
        os.utime(folder, (0, 0))


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
