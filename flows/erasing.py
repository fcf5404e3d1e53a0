"""Erases users of an installation, as the flows and the command line have it open."""

from __future__ import annotations

from flows.context import Context
from serving.erasing import Eraser


def eraser(context: Context) -> Eraser:
    """Erases users wherever something of them lies."""
    return Eraser(
        database=context.database,
        keyring=context.keyring,
        store=context.store,
        settings=context.settings,
        clock=context.clock,
        make_id=context.new_id,
    )
