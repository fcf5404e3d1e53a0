"""With privacy.encrypt_texts no text lies open in the database, and everything works."""

from __future__ import annotations

from dataclasses import replace

from sqlmodel import select

from flows.curation.dataset import build_dataset
from flows.curation.pipeline import curate
from registry.clock import new_id, utc_now
from registry.models import ClientMetadata
from registry.settings import CurationSettings, PrivacySettings
from tests.serving.conftest import Installation
from tests.serving.router import Router, running_router
from tests.support.traces import files_with, tables_with

SECRET = "an unusual word"
TEXT = f"Write an email with {SECRET}"


def with_privacy(installation: Installation, **changes: bool) -> Installation:
    privacy = PrivacySettings(**changes)  # type: ignore[arg-type]
    settings = installation.settings.model_copy(update={"privacy": privacy})
    return replace(installation, settings=settings, keyring=installation.keyring.with_texts(True))


async def ask_and_rate(router: Router) -> str:
    body = {"text": TEXT, "user_id": "ann"}
    keyed = {"Idempotency-Key": "k"}
    first = await router.client.post("/api/generate", json=body, headers=keyed)
    again = await router.client.post("/api/generate", json=body, headers=keyed)
    assert first.json() == again.json()
    row_id: str = first.json()["interaction_id"]
    said = {
        "interaction_id": row_id,
        "score": 5,
        "feedback_text": SECRET,
        "corrected_output": f"Role: {SECRET}\nTask: {SECRET}",
    }
    assert (await router.client.post("/api/feedback", json=said)).status_code == 200
    return row_id


async def test_history_candidates_and_curation_read_sealed_texts(
    installation: Installation,
) -> None:
    sealing = with_privacy(installation, encrypt_texts=True)
    async with running_router(sealing.settings) as router:
        row_id = await ask_and_rate(router)
        (item,) = (await router.client.get("/api/history/ann")).json()["interactions"]
        assert (item["text"], item["feedback_text"]) == (TEXT, SECRET)
        found = (await router.client.get("/api/admin/training-data-candidates")).json()
        assert found["candidates"][0]["input_text"] == TEXT
        assert found["candidates"][0]["interaction_id"] == row_id
        batch = {"id": "own", "input_text": TEXT, "model_output": SECRET}
        for status in ("created", "duplicate"):
            told = (await router.client.post("/api/interactions", json=batch)).json()
            assert told["results"][0]["status"] == status
    report = curate(
        sealing.database,
        workload="default",
        settings=CurationSettings(min_quality=0),
        clock=utc_now,
        new_id=new_id,
        keyring=sealing.keyring,
    )
    assert report.num_added == 1
    assert tables_with(sealing.database, SECRET) == []
    assert files_with(sealing.settings.home, SECRET) == []
    built = build_dataset(
        sealing.database,
        sealing.store,
        workload="default",
        settings=CurationSettings(),
        folder=sealing.settings.home / "dataset",
        clock=utc_now,
        new_id=new_id,
        keyring=sealing.keyring,
    )
    written = built.train_file.read_text() + built.validation_file.read_text()
    assert SECRET in written


async def test_client_metadata_is_kept_sealed_or_not_at_all(installation: Installation) -> None:
    for kept in (True, False):
        settings = with_privacy(installation, client_metadata=kept).settings
        async with running_router(settings) as router:
            said = await router.generate(user_id="ann")
            assert said.status_code == 200
        with installation.database.read() as session:
            row = session.get(ClientMetadata, said.json()["interaction_id"])
            assert (row is not None) == kept
            if row is not None:
                place = f"client_metadata.user_agent:{row.interaction_id}"
                sealed = row.user_agent_encrypted or ""
                assert "httpx" in installation.keyring.decrypt(sealed, context=place)
    with installation.database.read() as session:
        assert len(session.exec(select(ClientMetadata)).all()) == 1
    assert tables_with(installation.database, "httpx") == []
