"""The demo's own folder: emptied for each run, and never another one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.errors import LocalError
from flows.local import ports
from flows.local.locks import DEMO, lock
from registry.folders import make_private
from registry.settings import Settings

MARKER = ".kalimtak-demo"
"""A file in every folder that a demo has made."""


@contextmanager
def own_folder(settings: Settings) -> Iterator[None]:
    """The home of a demo's `settings`, empty and for it alone during the block.

    Raises `LocalError` where another demo runs, a port is taken, or the folder is no demo's;
    then nothing is removed.
    """
    with lock(settings.home.parent, DEMO, who="'kalimtak demo'"):
        ports.check_endpoint(settings)
        _empty(settings.home)
        yield


def _empty(home: Path) -> None:
    if home.exists():
        if any(home.iterdir()) and not (home / MARKER).exists():
            raise LocalError(
                f"{home} was not made by a demo, or by one before it marked its folder: move it "
                "away, or set KALIMTAK_HOME to another one"
            )
        shutil.rmtree(home)
    make_private(home)
    (home / MARKER).touch()
