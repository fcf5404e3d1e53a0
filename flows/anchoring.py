"""Takes the audit log's head out of the database, and reads it back."""

from __future__ import annotations

import fsspec
import httpx

from registry.audit_check import Head
from registry.errors import AuditError

HTTP = ("http://", "https://")
TIMEOUT_S = 30


def write_anchor(head: Head, target: str) -> None:
    """Keep the head at `target`: posted to http(s), else written in place of what is there.

    Raises `AuditError` where the target does not take it.
    """
    line = head.to_json() + "\n"
    try:
        if target.startswith(HTTP):
            httpx.post(
                target,
                content=line,
                headers={"Content-Type": "application/json"},
                timeout=TIMEOUT_S,
            ).raise_for_status()
            return
        # A transaction moves the file into its place whole.
        filesystem, path = fsspec.core.url_to_fs(target)
        with filesystem.transaction, filesystem.open(path, "wb") as file:
            file.write(line.encode())
    except (OSError, ValueError, ImportError, httpx.HTTPError) as error:
        raise AuditError(f"cannot write the anchor to {target}: {error}") from error


def read_anchor(source: str) -> Head:
    """The head that was kept at `source`. Raises `AuditError`."""
    try:
        if source.startswith(HTTP):
            answer = httpx.get(source, timeout=TIMEOUT_S).raise_for_status()
            return Head.from_json(answer.text)
        with fsspec.open(source, "rt", encoding="utf-8") as file:
            return Head.from_json(file.read())
    except (OSError, ValueError, ImportError, httpx.HTTPError) as error:
        raise AuditError(f"cannot read the anchor {source}: {error}") from error
