"""The flow retention: deletes what was kept long enough, finishes erasures, collects garbage."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from prefect import flow

from flows.check_triggers import start_deployment
from flows.context import Context, open_context
from flows.erasing import eraser
from flows.prefect_steps import PrefectSteps
from flows.steps import Steps
from registry import acts, collecting, erased_versions, erasure, key_rotation, leftovers
from registry import retention as rules
from registry.models import Dataset
from serving.access.window_store import forget_ended
from serving.erasing import SPOOL
from serving.recording.records import Item
from serving.recording.sweeping import keys_in_files, sweep_quarantine
from serving.runtime_env import run_folder

ACTOR = "flow:retention"
PAUSE_S = 0.02
"""Between batches: writers that wait for SQLite's lock get it then."""
TRIGGER = "erasure"
Retrain = Callable[[str], object]
"""Has a workload trained without what was erased."""


@dataclass(frozen=True)
class RetentionReport:
    """What was deleted or done, by name; how much."""

    counts: dict[str, int]


def run_retention(
    context: Context, *, steps: Steps, retrain: Retrain | None = None
) -> RetentionReport:
    """Every step may be repeated, and goes on where an earlier run was stopped.

    Without `retrain`, trainings that erasures have asked for wait for a run that has it.
    """
    counts: dict[str, int] = {}
    parts: dict[str, Callable[[], dict[str, int]]] = {
        "erasures": lambda: _erasures(context, retrain),
        "expire": lambda: _expire(context),
        "files": lambda: _files(context),
        "keys": lambda: _keys(context),
    }
    for name, part in parts.items():
        counts |= steps.run(name, part, retries=2)
    table = "\n".join(f"| {name} | {number} |" for name, number in counts.items())
    steps.table("retention", f"| what | how much |\n|---|---|\n{table}\n")
    return RetentionReport(counts)


def _erasures(context: Context, retrain: Retrain | None) -> dict[str, int]:
    """Those that were interrupted, and what came to light since."""
    at_work = eraser(context)
    with context.database.read() as session:
        unfinished = erasure.pending(session)
    for row in unfinished:
        at_work.resume(row, thorough=False)
    taken_out = at_work.carry_out_policy()
    with context.database.read() as session:
        waiting = erased_versions.workloads_to_retrain(session)
        unscrubbed = len(erasure.unscrubbed(session))
    for workload in waiting if retrain is not None else ():
        assert retrain is not None
        retrain(workload)
        with context.database.write() as session:
            erased_versions.retraining_began(session, context.act(ACTOR, TRIGGER), workload)
    if unscrubbed:
        at_work.scrub(thorough=True)
    return {
        "erasures finished": len(unfinished),
        "versions taken out of service": len(taken_out),
        "trainings for erasures": len(waiting),
    }


def _expire(context: Context) -> dict[str, int]:
    return rules.expire(
        context.database,
        context.act(ACTOR, "kept long enough"),
        context.settings.retention,
        pause=lambda: time.sleep(PAUSE_S),
    )


def _files(context: Context) -> dict[str, int]:
    settings, now = context.settings.retention, context.clock()
    with context.database.read() as session:
        old = rules.old_datasets(session, settings, now=now)
        runs, _ = leftovers.sweep_runs(session, context.settings.home, now=now)
    for found in old:
        with context.database.write() as session:
            row = session.get_one(Dataset, found.id)
            row.files_deleted_at = now
            session.add(row)
            act = context.act(ACTOR, "kept long enough")
            acts.record(session, act, action="expire", subject=f"dataset:{found.id}")
        # Files that a crash leaves here are artifacts that nothing needs.
        context.store.remove(found.digest)
    since = (
        None if settings.quarantine_days is None else now - timedelta(days=settings.quarantine_days)
    )
    return {
        "datasets": len(old),
        "run folders": runs,
        "rate limits": forget_ended(run_folder(context.settings), now=now.timestamp()),
        "reports": 0
        if settings.interactions_days is None
        else leftovers.sweep_pages(
            context.settings.home, before=now - timedelta(days=settings.interactions_days)
        ),
        "artifacts": collecting.collect(
            context.database,
            context.store,
            settings,
            now=now,
            drop_touched=context.settings.privacy.erased_versions != "list",
        ),
        "quarantined records": sweep_quarantine(
            context.settings.home / SPOOL,
            context.keyring,
            eraser(context).known_only(_all),
            since=since,
        ),
    }


def _keys(context: Context) -> dict[str, int]:
    in_files = keys_in_files(context.settings.home / SPOOL)
    retired = key_rotation.retire(context.database, context.act(ACTOR, "unused"), in_files=in_files)
    return {"keys": len(retired)}


def _all(item: Item) -> Item:
    return item


@flow(name="retention")
def retention() -> None:
    """Deletes what was kept long enough, finishes erasures, collects garbage."""

    def retrain(workload: str) -> object:
        return start_deployment(workload=workload, trigger=TRIGGER, dry_run=False)

    run_retention(open_context(), steps=PrefectSteps(), retrain=retrain)
