"""Times as people write them."""

from datetime import UTC, datetime, timedelta

from flows.errors import UnreadableTimeError


def moment(text: str, option: str) -> datetime:
    """An ISO 8601 time; without a zone it is UTC. Raises `UnreadableTimeError`."""
    try:
        found = datetime.fromisoformat(text)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UnreadableTimeError(
            f"{option} {text}: write a time as 2026-01-14 or 2026-01-14T12:30:00+00:00"
        ) from error


def lifetime(number: float, unit: timedelta, option: str, *, now: datetime) -> timedelta:
    """How long something is good from `now` on. Raises `UnreadableTimeError`."""
    try:
        found = number * unit
        return now + found - now  # what lies beyond the year 9999 is no time
    except (ValueError, OverflowError) as error:
        raise UnreadableTimeError(
            f"{option} {number:g}: nothing can be good for so long"
        ) from error
