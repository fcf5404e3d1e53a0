"""The serving side's exceptions.

KalimtakError
└── ServingError
    ├── EngineError           a request could not be generated
    │   ├── PromptTooLongError    the prompt and one token of answer exceed the model's context
    │   ├── ChatRefusedError      the model's template takes no such conversation
    │   └── NotLoadedError        the engine does not hold the adapter that the request names
    ├── AdapterError          an adapter cannot be used with this base model
    ├── OverloadedError       a bounded queue is full
    ├── GoneError             no replica lives of the kind that was waited for
    ├── RecordingError        an answer or feedback could not be written down
    ├── OrchestratorError     the Prefect server cannot be used
    ├── ClientError           an endpoint could not be reached, or refused a request
    ├── UnavailableError      the database is away; what it was offered may be offered again
    └── RecordError           a spooled record cannot be read
"""

from registry.errors import KalimtakError


class ServingError(KalimtakError):
    """Base of the serving side's errors."""


class EngineError(ServingError):
    """A request could not be generated."""


class PromptTooLongError(EngineError):
    """The prompt and one token of answer exceed the model's context."""


class ChatRefusedError(EngineError):
    """The model's template takes no such conversation."""


class NotLoadedError(EngineError):
    """The engine does not hold the adapter that the request names."""


class AdapterError(ServingError):
    """An adapter cannot be used with this base model."""


class OverloadedError(ServingError):
    """A bounded queue is full."""


class GoneError(ServingError):
    """No replica lives of the kind that was waited for."""


class RecordingError(ServingError):
    """An answer or feedback could not be written down."""


class OrchestratorError(ServingError):
    """The Prefect server cannot be used."""


class ClientError(ServingError):
    """An endpoint could not be reached, or refused a request."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """The answer's status; None where there was no answer."""


class RecordError(ServingError):
    """A spooled record cannot be read."""


class UnavailableError(ServingError):
    """The database is away; what it was offered may be offered again."""
