"""Imports a file: every row once, in batches of one transaction each, the others with reasons.

A row's id is a digest of what it says, so that a second run adds only what is new. Feedback
counts as given now, since curation reads by the time at which it learned of it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from pydantic import ValidationError
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from flows.context import Context
from flows.errors import UnreadableFileError
from flows.intake import values
from flows.intake.formats import FEEDBACK, Format, Nature, Reading, choose
from flows.intake.readers import open_source
from flows.intake.rows import Row, Source
from flows.intake.values import RowError
from flows.scoring import load_active
from registry import acts, interactions
from registry.errors import NotFoundError
from registry.features import Sample
from registry.models import ModelVersion, UserInteraction
from registry.quality import Score, judge
from serving.recording.intake import (
    LoggedInteraction,
    Origin,
    is_future,
    to_feedback,
    to_interaction,
)
from serving.recording.rows import rescored

ACTOR = "cli"
BATCH_ROWS = 500
SAMPLE_ROWS = 100
"""Rows that are looked at, before a file is given up that has none to go by."""
MAX_REASONS = 50

Advance = Callable[[int], object]
"""Told how much of the source's total has been read."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be imported, and how."""

    path: Path
    workload: str
    refused_path: Path
    format: Format | None = None
    mapping: Mapping[str, str] = field(default_factory=dict)
    nature: Nature | None = None
    encoding: str = "utf-8"
    dry_run: bool = False


@dataclass
class ImportReport:
    """What became of every row."""

    format: Format
    nature: Nature
    read: int = 0
    imported: int = 0
    known: int = 0
    """Already there, from an earlier run or an equal row."""
    feedback: int = 0
    erased: int = 0
    """Of users who were erased since; left out."""
    refused: int = 0
    naive_times: int = 0
    """Rows whose time had no zone, so that UTC was assumed."""
    without_time: int = 0
    """Rows without a time; they got the file's."""
    reasons: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Taken:
    """A row that can be imported."""

    id: str
    item: LoggedInteraction


class Importer:
    """One import. `run` may be called once."""

    def __init__(self, context: Context, request: Request) -> None:
        """Open the file and decide how to read it. Raises `UnreadableFileError`."""
        self._context = context
        self._request = request
        if _are_one_file(request.path, request.refused_path):
            raise UnreadableFileError(
                f"{request.path} is what is read: name another file for the refused rows"
            )
        self.source: Source = open_source(request.path, encoding=request.encoding)
        self._file_time = datetime.fromtimestamp(request.path.stat().st_mtime, UTC)
        try:
            head, sample = _sample(self.source.rows, request.path)
            self._reading: Reading = choose(
                self.source,
                sample,
                wanted=request.format,
                mapping=request.mapping,
                nature=request.nature,
            )
        except UnreadableFileError:
            self.source.close()
            raise
        self._rows: Iterable[Row] = itertools.chain(head, self.source.rows)
        self.report = ImportReport(self._reading.format, self._reading.nature)
        self._rehearsed: dict[str, bool] = {}
        """In a dry run: rows of earlier batches, and whether something was said of them."""
        found = load_active(context, workload=request.workload)
        self._active = None if found is None else found[0]

    def _judged_by(self, _workload: str, sample: Sample) -> Score | None:
        return judge(sample, self._active)

    def run(self, advance: Advance = lambda _done: None) -> ImportReport:
        """Read, check and write everything."""
        rows, report = iter(self._rows), self.report
        with closing(self.source), _private(self._request.refused_path) as refused:
            self._audit("import")
            while batch := list(itertools.islice(rows, BATCH_ROWS)):
                self._import(batch, refused)
                advance(self.source.position() or report.read)
            self._audit(
                "end_import",
                imported=report.imported,
                known=report.known,
                feedback=report.feedback,
                erased=report.erased,
                refused=report.refused,
            )
        return report

    def _audit(self, action: str, **counts: int) -> None:
        if self._request.dry_run:
            return
        context, request = self._context, self._request
        with context.database.write() as session:
            acts.record(
                session,
                context.act(ACTOR, f"{self.report.format} file"),
                action=action,
                subject=f"workload:{request.workload}",
                details={"file": request.path.name, **counts},
            )

    def _import(self, batch: list[Row], refused: TextIO) -> None:
        taken: dict[str, _Taken] = {}
        for row in batch:
            self.report.read += 1
            try:
                found = self._take(row)
            except RowError as error:
                self._refuse(row.place, error, refused)
                continue
            earlier = taken.setdefault(found.id, found)
            if earlier is found:
                continue
            self.report.known += 1
            if earlier.item.feedback is None:
                # A log that only grows tells a row again once something was said of it.
                said = {"feedback": found.item.feedback}
                taken[found.id] = _Taken(found.id, earlier.item.model_copy(update=said))
        try:
            self._write(taken)
        except IntegrityError:
            # Another import has written some of these ids in the meantime.
            self._write(taken)

    def _take(self, row: Row) -> _Taken:
        """A row, checked. Raises `RowError`."""
        if row.value is None:
            raise RowError("", row.fault or "no row")
        found = self._reading.fields(row.value)
        own_id = found.pop("id", None)
        created_at = found.pop("created_at", None)
        naive = False
        if created_at is not None:
            found["created_at"], naive = values.moment(created_at)
        feedback = {name: found.pop(name) for name in FEEDBACK if name in found}
        if feedback and "error" not in found:
            found["feedback"] = feedback
        item = _checked({**found, "workload": self._request.workload})
        row_id = _row_id(self._request.workload, own_id, found)
        if item.created_at is not None and is_future(item.created_at, now=self._context.clock()):
            raise RowError("created_at", f"{item.created_at.isoformat()} is in the future")
        self.report.naive_times += naive
        if item.created_at is None:
            self.report.without_time += 1
            item = item.model_copy(update={"created_at": self._file_time})
        return _Taken(row_id, item)

    def _write(self, taken: Mapping[str, _Taken]) -> None:
        """One transaction for a batch; what is there already stays as it is."""
        database = self._context.database
        if self._request.dry_run:
            with database.read() as session:
                known = _known(session, taken)
            known |= {name: self._rehearsed[name] for name in taken if name in self._rehearsed}
            judged = _judged(taken, known)
            self._count(taken, known, judged, kept=len(taken) - len(known))
            self._rehearsed |= known | dict.fromkeys(taken.keys() - known, False)
            self._rehearsed |= dict.fromkeys((found.id for found in judged), True)
            return
        with database.write() as session:
            known = _known(session, taken)
            versions = _versions(session, taken)
            now = self._context.clock()
            kept = interactions.log(
                session,
                [
                    rescored(
                        to_interaction(
                            found.item,
                            Origin(row_id, "imported", found.item.user_id, now, versions),
                        ),
                        self._judged_by,
                    )
                    for row_id, found in taken.items()
                    if row_id not in known
                ],
                keyring=self._context.keyring,
            )
            judged = _judged(taken, known)
            for found in judged:
                assert found.item.feedback is not None
                # Of a user who was erased since, neither answer nor feedback is taken.
                with suppress(NotFoundError):
                    interactions.add_feedback(
                        session,
                        to_feedback(found.item.feedback, interaction_id=found.id),
                        now=now,
                        new_id=self._context.new_id,
                        keyring=self._context.keyring,
                    )
        self._count(taken, known, judged, kept=kept)

    def _count(
        self,
        taken: Mapping[str, _Taken],
        known: Mapping[str, bool],
        judged: list[_Taken],
        *,
        kept: int,
    ) -> None:
        self.report.imported += kept
        self.report.erased += len(taken) - len(known) - kept
        self.report.known += len(known)
        self.report.feedback += len(judged)

    def _refuse(self, place: int, error: RowError, refused: TextIO) -> None:
        self.report.refused += 1
        reason = f"{error.field}: {error}" if error.field else str(error)
        reasons = self.report.reasons
        reasons[reason if reason in reasons or len(reasons) < MAX_REASONS else "other reasons"] += 1
        told = {"row": place, "field": error.field or None, "reason": str(error)}
        refused.write(json.dumps(told) + "\n")


def _sample(rows: Iterator[Row], path: Path) -> tuple[list[Row], dict[str, Any]]:
    """The first rows, up to one that can be read, and that one's value."""
    head: list[Row] = []
    for row in itertools.islice(rows, SAMPLE_ROWS):
        head.append(row)
        if row.value is not None:
            return head, row.value
    fault = head[0].fault if head else "there are no rows in it"
    raise UnreadableFileError(f"{path} holds nothing that can be imported: {fault}")


def _checked(fields: Mapping[str, Any]) -> LoggedInteraction:
    try:
        return LoggedInteraction.model_validate(fields)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = ".".join(str(part) for part in fault["loc"])[:100]
        raise RowError(name, fault["msg"].removeprefix("Value error, ")) from error


def _row_id(workload: str, own_id: object, found: Mapping[str, Any]) -> str:
    """A version 8 UUID (RFC 9562) of what the row says; feedback, which changes, left out."""
    said = {name: value for name, value in found.items() if name != "feedback"}
    text = json.dumps([workload, own_id, said], sort_keys=True, default=str)
    value = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16])
    value = (value & ~(0xF << 76)) | (0x8 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    return str(uuid.UUID(int=value))


def _known(session: Session, taken: Mapping[str, _Taken]) -> dict[str, bool]:
    """Those of the rows that are there, and whether they have feedback."""
    rows = session.exec(
        select(UserInteraction.id, UserInteraction.feedback_at).where(
            col(UserInteraction.id).in_(list(taken))
        )
    )
    return {row_id: feedback_at is not None for row_id, feedback_at in rows}


def _versions(session: Session, taken: Mapping[str, _Taken]) -> frozenset[str]:
    named = {found.item.model_version for found in taken.values()} - {None}
    query = select(ModelVersion.version).where(col(ModelVersion.version).in_(named))
    return frozenset(session.exec(query).all())


def _judged(taken: Mapping[str, _Taken], known: Mapping[str, bool]) -> list[_Taken]:
    """Rows whose feedback is to be written: nothing is known to have been said of them."""
    return [
        found
        for row_id, found in taken.items()
        if found.item.feedback is not None and not known.get(row_id, False)
    ]


def _are_one_file(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


@contextmanager
def _private(path: Path) -> Iterator[TextIO]:
    """A new file, its owner's alone; nothing is left of it where nothing was written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            yield file
    finally:
        if path.is_file() and path.stat().st_size == 0:
            path.unlink()
