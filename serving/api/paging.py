"""Pages, newest first: a cursor names the last row of the page before."""

import base64
import binascii
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Query

from serving.problems import ProblemError

MAX_LIMIT = 100
DEFAULT_LIMIT = 50

Limit = Annotated[int, Query(ge=1, description="Rows a page; 100 at most, whatever is asked for.")]


def encode(moment: datetime, row_id: str) -> str:
    """The cursor of a row."""
    return base64.urlsafe_b64encode(f"{moment.isoformat()}|{row_id}".encode()).decode()


def decode(cursor: str) -> tuple[datetime, str]:
    """Moment and id of a cursor's row. Raises `ProblemError` 422."""
    try:
        text, _, row_id = base64.urlsafe_b64decode(cursor).decode().partition("|")
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None or "\0" in row_id:
            raise ValueError("no cursor of ours")
        moment = moment.astimezone(UTC)
    except (ValueError, OverflowError, binascii.Error) as error:
        raise ProblemError(
            422, "cursor: pass back what 'next' of the page before said", field="cursor"
        ) from error
    return moment, row_id
