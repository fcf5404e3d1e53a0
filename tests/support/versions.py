"""Versions that were not trained here."""

from __future__ import annotations

from flows.context import Context
from registry import versions


def register_version(
    context: Context, version: str, *, parent: str | None = None, workload: str = "default"
) -> None:
    """Register a version that has passed the gate; nothing lies in the store for it."""
    with context.database.write() as session:
        versions.register(
            session,
            version=version,
            workload=workload,
            base_model="base",
            adapter_digest=version[-1] * 64,
            recipe="r",
            now=context.clock(),
            parent_version=parent,
            evaluation={"gate": {"passed": True}},
        )
