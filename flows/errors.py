"""The flows' exceptions.

KalimtakError
└── FlowError
    ├── RefusedError      what was asked for makes no sense yet, with the reason
    ├── UnreadableFileError   a file cannot be imported, or not in the way that was asked for
    ├── UnreadableTimeError   a time on the command line is none
    ├── ExportError       what was asked for cannot be exported
    ├── SomeFailedError   a flow failed for some of its workloads; the others had their turn
    └── LocalError        the local installation cannot be started, stopped or reached
"""

from registry.errors import KalimtakError


class FlowError(KalimtakError):
    """Base of every error that a flow raises on purpose."""


class RefusedError(FlowError):
    """What was asked for makes no sense yet: too little data, or nothing new to learn."""


class SomeFailedError(FlowError):
    """A flow failed for some of its workloads; the others had their turn."""


class UnreadableFileError(FlowError):
    """A file cannot be imported at all, or not in the way that was asked for."""


class UnreadableTimeError(FlowError):
    """What was given as a time is none."""


class ExportError(FlowError):
    """What was asked for cannot be exported; nothing was written."""


class LocalError(FlowError):
    """The local installation cannot be started, stopped or reached."""
