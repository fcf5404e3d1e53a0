"""Takes interactions from elsewhere in: checks each, knows those it has, records the rest."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from sqlmodel import Session, col, select

from registry import privacy, texts
from registry.clock import Clock, NewId, new_id, utc_now
from registry.crypto import Keyring
from registry.db import Database
from registry.errors import NotFoundError
from registry.interactions import Interaction
from registry.models import ModelVersion, UserInteraction, Workload
from serving.access.auth import Principal, acting_user
from serving.errors import OverloadedError, RecordingError
from serving.problems import ProblemError, from_validation
from serving.recording.intake import (
    LoggedInteraction,
    LoggedResponse,
    LoggedResult,
    Origin,
    is_future,
    to_feedback,
    to_interaction,
)
from serving.recording.recorder import Recorder
from serving.recording.rows import Judge, by_rule, rescored

MAX_FIELDS = 1_000
"""Of one interaction, known or not: telling what is wrong with more would take seconds."""


@dataclass(frozen=True)
class Prepared:
    """One interaction as it was sent: checked, or refused."""

    item: LoggedInteraction | None
    user_id: str | None = None
    refused: ProblemError | None = None


@dataclass(frozen=True)
class _Known:
    """What the database knows beforehand."""

    stored: dict[str, UserInteraction]
    workloads: frozenset[str]
    versions: frozenset[str]
    owner: str | None
    """Whose interactions the caller may know, by pseudonym; None: everybody's."""
    erased: dict[str, datetime]
    """Users of the batch who were erased, by their own ids, and when."""


@dataclass
class _Batch:
    """One batch on its way: results by index, and what is to be written."""

    results: dict[int, LoggedResult] = field(default_factory=dict)
    rows: dict[str, Interaction] = field(default_factory=dict)
    judged: dict[int, LoggedInteraction] = field(default_factory=dict)
    """Items whose feedback is to be written, by index."""

    rated: set[str] = field(default_factory=set)
    """Ids whose feedback is among them."""

    def settle(self, index: int, row_id: str, status: Any) -> None:
        self.results[index] = LoggedResult(index=index, interaction_id=row_id, status=status)

    def refuse(self, index: int, problem: ProblemError, row_id: str | None = None) -> None:
        self.judged.pop(index, None)
        error = {"status": problem.status, "detail": problem.detail, "field": problem.field}
        self.results[index] = LoggedResult(
            index=index, interaction_id=row_id, status="refused", error=error
        )


def prepare(value: object, caller: Principal) -> Prepared:
    """Check one interaction, as far as that goes without the database."""
    if isinstance(value, dict) and len(value) > MAX_FIELDS:
        detail = f"an interaction has at most {MAX_FIELDS} fields, this one {len(value)}"
        return Prepared(None, refused=ProblemError(422, detail))
    try:
        item = LoggedInteraction.model_validate(value)
        return Prepared(item, acting_user(caller, item.user_id))
    except ValidationError as error:
        return Prepared(None, refused=from_validation(error))
    except ProblemError as error:
        return Prepared(None, refused=error)


def refusal(result: LoggedResult) -> ProblemError:
    """A refused result as the problem that it is."""
    error = result.error or {}
    return ProblemError(error["status"], error["detail"], field=error["field"])


class Intake:
    """Takes batches in for one router."""

    def __init__(
        self,
        database: Database,
        recorder: Recorder,
        *,
        judged_by: Judge = by_rule,
        clock: Clock = utc_now,
        make_id: NewId = new_id,
    ) -> None:
        self._database = database
        self._recorder = recorder
        self._judged_by = judged_by
        self._clock = clock
        self._make_id = make_id

    async def take(
        self, prepared: Sequence[Prepared], *, owner: str | None = None
    ) -> LoggedResponse:
        """One result for each, once what was created is durable.

        `owner`: pseudonym of the one user whose interactions the caller may know; None: all.
        Raises `RecordingError`, `OverloadedError` or an error of SQLAlchemy where nothing
        could be written; sending the same again is safe.
        """
        batch = await asyncio.to_thread(self._sort, prepared, owner)
        try:
            await self._record(batch)
        except RecordingError:
            # Another router may have written the same ids in the meantime.
            batch = await asyncio.to_thread(self._sort, prepared, owner)
            await self._record(batch)
        judged = list(batch.judged.items())
        await asyncio.gather(*(self._judge(batch, index, item, owner) for index, item in judged))
        return _response(batch)

    def _sort(self, prepared: Sequence[Prepared], owner: str | None) -> _Batch:
        """What is new, what is known, and what is refused."""
        keyring = self._recorder.keyring
        with self._database.read() as session:
            known = _look_up(session, prepared, owner, keyring)
            for row in known.stored.values():
                texts.reveal(row, keyring)
        now = self._clock()
        batch = _Batch()
        for index, entry in enumerate(prepared):
            if entry.item is None:
                batch.refuse(index, entry.refused or ProblemError(422, "not an interaction"))
            else:
                self._place(batch, index, entry, known, now)
        return batch

    def _place(
        self, batch: _Batch, index: int, entry: Prepared, known: _Known, now: datetime
    ) -> None:
        item = entry.item
        assert item is not None
        row_id = item.id or self._make_id()
        problem = _problem(item, known, now)
        if problem is not None:
            batch.refuse(index, problem, item.id)
            return
        erased_at = known.erased.get(entry.user_id or "")
        if erased_at is not None and (item.created_at or now) <= erased_at:
            batch.refuse(index, _gone(), item.id)
            return
        origin = Origin(row_id, "logged", entry.user_id, now, known.versions)
        row = rescored(to_interaction(item, origin), self._judged_by)
        stored = known.stored.get(row_id)
        if stored is not None and known.owner not in (None, stored.user_id):
            # Neither what it says nor what is said of it is the caller's.
            batch.refuse(index, ProblemError(409, f"id: '{row_id}' is taken", field="id"), row_id)
            return
        before = _content(batch.rows.get(row_id) or stored)
        if before is None:
            batch.rows[row_id] = row
            batch.settle(index, row_id, "created")
        elif before == _content(row) or _is_blank(before):
            batch.settle(index, row_id, "duplicate")
        else:
            detail = f"id: '{row_id}' is known with another content"
            batch.refuse(index, ProblemError(409, detail, field="id"), row_id)
            return
        # Feedback that was lost between the two writes of an earlier attempt is made up for.
        is_judged = row_id in batch.rated or (stored is not None and stored.feedback_at is not None)
        if item.feedback is not None and not is_judged:
            batch.judged[index] = item
            batch.rated.add(row_id)

    async def _record(self, batch: _Batch) -> None:
        if batch.rows:
            await self._recorder.record(*batch.rows.values())

    async def _judge(
        self, batch: _Batch, index: int, item: LoggedInteraction, owner: str | None
    ) -> None:
        row_id = batch.results[index].interaction_id
        assert item.feedback is not None
        assert row_id is not None
        try:
            said = to_feedback(item.feedback, interaction_id=row_id)
            await self._recorder.feedback(replace(said, owner=owner))
        except NotFoundError:  # since it was written down, a moment ago
            batch.refuse(index, _gone(), row_id)
        except (RecordingError, OverloadedError) as error:
            detail = f"feedback: it could not be written down ({error}); send the item again"
            batch.refuse(index, ProblemError(503, detail, field="feedback"), row_id)


def _look_up(
    session: Session, prepared: Sequence[Prepared], owner: str | None, keyring: Keyring
) -> _Known:
    items = [entry.item for entry in prepared if entry.item is not None]
    ids = [item.id for item in items if item.id is not None]
    named = {item.model_version for item in items if item.model_version is not None}
    users = {keyring.pseudonym(entry.user_id): entry.user_id for entry in prepared if entry.user_id}
    gone = privacy.erased(session, list(users), keyring)
    stored = session.exec(select(UserInteraction).where(col(UserInteraction.id).in_(ids))).all()
    workloads = session.exec(
        select(Workload.name).where(col(Workload.name).in_({item.workload for item in items}))
    ).all()
    versions = session.exec(
        select(ModelVersion.version).where(col(ModelVersion.version).in_(named))
    ).all()
    by_id = {row.id: row for row in stored}
    erased = {users[pseudonym]: at for pseudonym, at in gone.items()}
    return _Known(by_id, frozenset(workloads), frozenset(versions), owner, erased)


def _problem(item: LoggedInteraction, known: _Known, now: datetime) -> ProblemError | None:
    if item.workload not in known.workloads:
        detail = f"workload: there is none called '{item.workload}'"
        return ProblemError(422, detail, field="workload")
    if item.created_at is not None and is_future(item.created_at, now=now):
        detail = f"created_at: {item.created_at.isoformat()} is in the future"
        return ProblemError(422, detail, field="created_at")
    return None


def _gone() -> ProblemError:
    detail = "user_id: of a user who was erased, what was asked before is not taken"
    return ProblemError(410, detail, field="user_id")


def _content(row: Interaction | UserInteraction | None) -> tuple[Any, ...] | None:
    """What must be the same for the same id."""
    if row is None:
        return None
    return (row.workload, row.input_text, row.messages, row.model_output, row.error)


def _is_blank(content: tuple[Any, ...]) -> bool:
    """Whether it is of a user who wants no content kept: then nobody can tell the difference."""
    _workload, *texts, _error = content
    return texts == ["", None, ""]


def _response(batch: _Batch) -> LoggedResponse:
    results = [batch.results[index] for index in sorted(batch.results)]
    tally = [result.status for result in results]
    return LoggedResponse(
        created=tally.count("created"),
        duplicates=tally.count("duplicate"),
        refused=tally.count("refused"),
        results=results,
    )
