"""Retention: what is old goes, what is needed stays, totals and the watermark remain."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlmodel import func, select

from flows.context import Context
from flows.curate import run_curate, show
from flows.curation.pipeline import curate, watermark
from flows.retention import run_retention
from flows.steps import PlainSteps
from registry import experiments, interactions, key_rotation, privacy, versions
from registry.errors import ConflictError
from registry.interactions import Interaction
from registry.models import (
    ClientMetadata,
    CurationRun,
    Dataset,
    FeedbackEvent,
    ModelVersion,
    RetainedUsage,
    TrainingData,
    User,
    UserInteraction,
)
from registry.settings_privacy import RetentionSettings
from serving.recording.intake import MAX_TOKENS
from serving.recording.records import seal
from serving.recording.spool import Spool
from tests.flows.conftest import NOW, FakeClock
from tests.support.usage import log_liked

DAY = 24


def retain(context: Context) -> dict[str, int]:
    return run_retention(context, steps=PlainSteps()).counts


def number(context: Context, table: type) -> int:
    with context.database.read() as session:
        return session.exec(select(func.count()).select_from(table)).one()


def with_retention(context: Context, **changes: object) -> Context:
    changed = RetentionSettings(**changes)  # type: ignore[arg-type]
    settings = context.settings.model_copy(update={"retention": changed})
    return Context(
        settings=settings,
        database=context.database,
        store=context.store,
        keyring=context.keyring,
        clock=context.clock,
    )


def curate_all(context: Context) -> None:
    curate(
        context.database,
        workload="default",
        settings=context.settings.curation,
        clock=context.clock,
        new_id=context.new_id,
        keyring=context.keyring,
    )


def test_interactions_go_with_all_that_hangs_on_them_and_leave_totals(
    context: Context, clock: FakeClock
) -> None:
    small = with_retention(context, batch_rows=3)
    log_liked(context, 10, at=NOW)
    curate_all(context)
    clock.move(hours=200 * DAY)
    log_liked(context, 4, at=clock(), start=100)
    clock.move(hours=166 * DAY)
    assert retain(small)["interactions"] == 10
    assert retain(small)["interactions"] == 0
    assert number(context, UserInteraction) == number(context, FeedbackEvent) == 4
    assert number(context, TrainingData) == 0
    with context.database.read() as session:
        (kept,) = session.exec(select(RetainedUsage)).all()
    assert (kept.day, kept.model, kept.total, kept.positive) == ("2026-01-14", "base", 10, 10)


@pytest.mark.both_databases
def test_a_day_may_have_more_tokens_than_four_bytes_count(
    context: Context, clock: FakeClock
) -> None:
    most = Interaction(
        id="i0",
        created_at=clock(),
        input_text="a",
        structured_prompt="b",
        model_output="c",
        tokens_input=MAX_TOKENS,
        tokens_output=MAX_TOKENS,
    )
    with context.database.write() as session:
        rows = [replace(most, id=f"i{n}") for n in range(5)]
        interactions.log(session, rows, keyring=context.keyring)
    clock.move(hours=400 * DAY)
    assert retain(with_retention(context, interactions_days=365.0))["interactions"] == 5
    with context.database.read() as session:
        (kept,) = session.exec(select(RetainedUsage)).all()
    assert (kept.tokens_input, kept.tokens_output) == (5 * MAX_TOKENS, 5 * MAX_TOKENS)


def test_unset_periods_keep_for_ever(context: Context, clock: FakeClock) -> None:
    forever = with_retention(context, interactions_days=None, users_days=None)
    log_liked(context, 2, at=NOW)
    clock.move(hours=4000 * DAY)
    retain(forever)
    assert number(context, UserInteraction) == 2


def test_client_metadata_goes_first(context: Context, clock: FakeClock) -> None:
    with context.database.write() as session:
        item = Interaction(
            id="i",
            created_at=NOW,
            input_text="a",
            structured_prompt="b",
            model_output="c",
            external_user_id="ann",
            ip_address="10.0.0.1",
        )
        interactions.log(session, [item], keyring=context.keyring)
    clock.move(hours=29 * DAY)
    retain(context)
    assert number(context, ClientMetadata) == 1
    clock.move(hours=2 * DAY)
    assert retain(context)["client_metadata"] == 1
    assert number(context, UserInteraction) == number(context, User) == 1


def test_users_go_with_their_last_interaction_unless_they_opted_out(
    context: Context, clock: FakeClock
) -> None:
    log_liked(context, 5, at=NOW)
    with context.database.write() as session:
        privacy.set_consent(session, context.act("test", "no"), "user-1", "no_training")
    clock.move(hours=366 * DAY)
    retain(context)
    with context.database.read() as session:
        assert session.exec(select(User.id)).all() == [context.keyring.pseudonym("user-1")]


def test_curation_goes_on_where_it_was(context: Context, clock: FakeClock) -> None:
    log_liked(context, 2, at=NOW)
    curate_all(context)
    clock.move(hours=1)
    log_liked(context, 2, at=clock(), start=10)
    clock.move(hours=0.1)
    curate_all(context)
    clock.move(hours=400 * DAY)
    assert retain(context)["curation_runs"] == 1
    assert number(context, CurationRun) == 1
    with context.database.read() as session:
        assert watermark(session, workload="default") == NOW + timedelta(hours=1, minutes=1)


def publish(context: Context, tmp_path: Path, name: str) -> str:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "weights").write_text(name)
    return context.store.publish(folder)


def test_only_artifacts_that_nothing_needs_are_collected(
    context: Context, clock: FakeClock, tmp_path: Path
) -> None:
    short = with_retention(context, keep_versions=2, artifact_grace_days=0.001)
    with context.database.write() as session:
        for index in range(5):
            digest = publish(context, tmp_path, f"v{index}")
            versions.register(
                session,
                version=f"v{index}",
                workload="default",
                base_model="tiny",
                adapter_digest=digest,
                recipe="tiny_cpu",
                now=clock.move(hours=1),
            )
            if index != 3:
                experiments.deploy(
                    session, context.act("test", "no"), workload="default", version=f"v{index}"
                )
        versions.transition(session, "v3", versions.Status.REJECTED, reason="bad", now=clock())
    orphan = publish(context, tmp_path, "orphan")
    clock.now = NOW.replace(year=2100)  # files carry the machine's time
    assert retain(short)["artifacts"] == 4
    with context.database.write() as session:
        rows = {row.version: row for row in session.exec(select(ModelVersion))}
        gone = {name for name, row in rows.items() if row.adapter_deleted_at is not None}
        assert gone == {"v0", "v1", "v3"}
        assert not context.store.exists(orphan)
        assert context.store.exists(rows["v2"].adapter_digest)
        assert context.store.exists(rows["v4"].adapter_digest)
        with pytest.raises(ConflictError, match="its adapter was deleted"):
            experiments.deploy(session, context.act("test", "no"), workload="default", version="v0")


def test_files_of_old_datasets_go_and_their_rows_say_so(
    context: Context, clock: FakeClock, tmp_path: Path
) -> None:
    digest = publish(context, tmp_path, "dataset")
    with context.database.write() as session:
        session.add(
            Dataset(id="d", digest=digest, num_train=1, num_validation=1, created_at=clock())
        )
    assert retain(context)["datasets"] == 0
    clock.move(hours=366 * DAY)
    assert retain(context)["datasets"] == 1
    assert not context.store.exists(digest)
    with context.database.read() as session:
        assert session.get_one(Dataset, "d").files_deleted_at == clock()


def test_old_and_useless_records_leave_the_quarantine(context: Context, clock: FakeClock) -> None:
    clock.now = NOW.replace(year=2100)  # the quarantine carries the machine's time
    spool = Spool(context.folder("spool"), max_bytes=10**6)
    item = Interaction(
        id="i", created_at=NOW, input_text="a", structured_prompt="b", model_output="c"
    )
    spool.quarantine(seal((item,), context.keyring), "refused")
    spool.close()
    forever = with_retention(context, quarantine_days=None)
    assert retain(forever)["quarantined records"] == 0
    assert retain(context)["quarantined records"] == 1


def test_keys_that_nothing_uses_are_deleted(context: Context, clock: FakeClock) -> None:
    for _ in range(2):
        key_rotation.rotate(context.database, context.act("test", "no"))
    assert retain(context)["keys"] == 0
    clock.move(hours=1)
    assert retain(context)["keys"] == 2
    assert len(context.keyring.fields.ids) == 2


def test_reports_that_quote_people_go_with_what_they_quote(
    context: Context, clock: FakeClock
) -> None:
    log_liked(context, 3, at=NOW)
    curated = run_curate(context, workload="default", steps=PlainSteps())
    page = show(context, curated, PlainSteps())
    os.utime(page, (NOW.timestamp(), NOW.timestamp()))
    assert retain(context)["reports"] == 0
    clock.move(hours=400 * DAY)
    assert retain(context)["reports"] == 1
    assert not page.exists()
