"""Puts a batch of interactions and feedback into the database, each item once."""

import logging
from collections.abc import Sequence

from sqlmodel import select

from registry import interactions
from registry.clock import Clock, NewId
from registry.crypto import Keyring
from registry.db import Database, is_refusal
from registry.errors import KeyringError, NotFoundError
from registry.interactions import Feedback
from registry.key_rotation import check_keys
from serving.errors import RecordingError, UnavailableError
from serving.metrics import Metrics
from serving.recording.records import Item

logger = logging.getLogger(__name__)


class Writer:
    """Writes batches, one transaction each."""

    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        *,
        metrics: Metrics,
        clock: Clock,
        make_id: NewId,
    ) -> None:
        self._database = database
        self._keyring = keyring
        self._metrics = metrics
        self._clock = clock
        self._make_id = make_id
        self._has_right_keys = False

    def write(self, batch: Sequence[Item], *, again: bool = False) -> list[Exception | None]:
        """What became of each item: None where it is kept, else why it never will be.

        `again`: some may have been kept before, and stay as they are.
        Where one item spoils the transaction, each gets its own. Raises `UnavailableError` where
        the database is away; some of the batch may be kept then, so offer all of it again.
        """
        try:
            return self._transact(batch, again)
        except UnavailableError:
            raise
        except Exception as error:  # whatever one item does, the others are written
            if not is_refusal(error):
                raise UnavailableError(f"the database is away: {_reason(error)}") from error
            if len(batch) > 1:
                return [self.write([item], again=again)[0] for item in batch]
            logger.warning("a record was refused: %s", _reason(error))
            failure = RecordingError(f"the database refused it: {_reason(error)}")
            failure.__cause__ = error
            return [failure]

    def is_possible(self) -> bool:
        """Whether the database takes writes now."""
        try:
            with self._database.write() as session:
                session.exec(select(1)).one()
        except Exception as error:  # being away has many faces
            logger.debug("the database is still away: %s", error)
            return False
        return True

    def _check_keys(self) -> None:
        """Once: nothing is written with keys that the database does not know."""
        if not self._has_right_keys:
            try:
                check_keys(self._database, self._keyring, now=self._clock())
            except KeyringError as error:
                raise UnavailableError(str(error)) from error
            self._has_right_keys = True

    def _transact(self, batch: Sequence[Item], again: bool) -> list[Exception | None]:
        self._check_keys()
        outcomes: list[Exception | None] = [None] * len(batch)
        rows = [row for item in batch if not isinstance(item, Feedback) for row in item]
        rated = []
        with self._database.write() as session:
            interactions.log(session, rows, keyring=self._keyring, again=again)
            for index, item in enumerate(batch):
                if not isinstance(item, Feedback):
                    continue
                try:
                    about = interactions.add_feedback(
                        session,
                        item,
                        now=self._clock(),
                        new_id=self._make_id,
                        keyring=self._keyring,
                    )
                    rated.append(about)
                except NotFoundError as error:
                    outcomes[index] = error
        for about in rated:
            if about is not None:
                self._metrics.rated(about)
        return outcomes


def _reason(error: Exception) -> str:
    """What the driver said, without the statement and its values, which hold people's texts."""
    said = str(getattr(error, "orig", None) or error)
    return said.partition("\n")[0][:200]
