"""The registry's exceptions.

KalimtakError
├── SettingsError      a settings file, variable or value is wrong; the CLI exits with 2
├── NotFoundError      the named row does not exist
├── ConflictError      the change contradicts what is stored (a lifecycle rule, a constraint)
│   └── BusyError      another run of the same kind is under way
├── DatabaseError      the database cannot be reached, or its schema does not fit this code
├── ArtifactError      an artifact is missing or cannot be read
│   └── DigestError    an artifact is not what its digest says
├── AuditError         the audit log cannot be written or used
├── BackupError        a backup cannot be made, read or restored
└── KeyringError       a key is missing or does not fit the stored data
"""


class KalimtakError(Exception):
    """Base of every error that the product raises on purpose; its text is meant for people."""


class SettingsError(KalimtakError):
    """A settings file, environment variable or value is wrong."""


class NotFoundError(KalimtakError):
    """The named row does not exist."""


class ConflictError(KalimtakError):
    """The change contradicts what is stored."""


class BusyError(ConflictError):
    """Another run of the same kind is under way."""


class DatabaseError(KalimtakError):
    """The database cannot be reached, or its schema does not fit this code."""


class ArtifactError(KalimtakError):
    """An artifact is missing or cannot be read."""


class DigestError(ArtifactError):
    """An artifact is not what its digest says."""


class AuditError(KalimtakError):
    """The audit log cannot be written or used."""


class BackupError(KalimtakError):
    """A backup cannot be made, read or restored; what there was is unchanged."""


class KeyringError(KalimtakError):
    """A key is missing or does not fit the stored data."""
