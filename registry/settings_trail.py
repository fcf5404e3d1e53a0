"""Settings: what vouches for the record from outside."""

from registry.settings_types import Part


class AuditSettings(Part):
    """The audit log."""

    anchor: str | None = None
    """Where `kalimtak audit head` also writes the head: a file or fsspec URL that it replaces,
    or an http(s) URL that it posts to. Best on a machine that this one cannot change."""
