"""What the replicas need of an engine; which one runs is a setting.

Knows nothing of torch, HTTP, databases or Ray.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Protocol

from serving.jobs import Delta, Job, Reply


class Engine(Protocol):
    """One base model and all live adapters, answering many jobs at once.

    Adapters are named by their digest and never change. Failures of a job are told in its
    reply's status; only a bug raises.
    """

    @property
    def adapters(self) -> frozenset[str]:
        """Names of the loaded adapters."""
        ...

    @property
    def alive(self) -> bool:
        """Whether it works; one that has been started and does not must be replaced."""
        ...

    def load(self, name: str, folder: Path) -> None:
        """Load an adapter, from any thread. Raises `AdapterError` where it does not fit."""
        ...

    def unload(self, name: str) -> None:
        """Let go of an adapter, from any thread; jobs that run with it still finish."""
        ...

    def start(self) -> None:
        """Begin to work, on the running event loop."""
        ...

    async def stop(self) -> None:
        """End; jobs that are not answered yet fail."""
        ...

    async def generate(self, job: Job) -> Reply:
        """Answer a job. Cancelling frees what it holds."""
        ...

    def stream(self, job: Job) -> AsyncGenerator[Delta | Reply, None]:
        """The same, piece by piece: deltas that make up the reply's text, then the reply.

        Closing the iterator frees what the job holds.
        """
        ...
