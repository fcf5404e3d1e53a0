"""Times as people write them."""

from datetime import UTC, datetime

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
