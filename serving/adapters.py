"""Keeps the adapters of all live versions loaded, and those that cannot be, refused."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path

from registry import base_model
from registry.artifacts import ArtifactStore
from registry.errors import KalimtakError
from serving.engine.protocol import Engine
from serving.errors import AdapterError

UNLOAD_AFTER_S = 5.0
"""Routers may still send to a version this long after it has ceased to be live."""
RETRY_AFTER_S = 5.0
"""A refused version is tried again: its artifact may have been out of reach."""

MANIFEST = "manifest.json"
"""Of an adapter: what it was made from."""

logger = logging.getLogger(__name__)


class OwnBase:
    """The base model of this replica, which adapters must have been trained on."""

    def __init__(self, name: str) -> None:
        self._name = name

    def refuse_others(self, adapter: Path) -> None:
        """Raise `AdapterError` where the adapter's manifest names another base model.

        One that was moved is the same; of one whose folder was changed in its place, only what
        ships with the project is held against what it was: others may have a new template.
        """
        manifest = adapter / MANIFEST
        if not manifest.is_file():
            return
        trained_on = json.loads(manifest.read_text("utf-8"))["base_model"]
        if trained_on["id"] == self._name != base_model.EMBEDDED:
            return
        if trained_on["digest"] != self._digest:
            raise AdapterError(
                f"it was trained on {trained_on['id']} ({trained_on['digest'][:20]}…), and this "
                f"replica serves {self._name} ({self._digest[:20]}…): set training.base_model "
                "back, or train a version on this one"
            )

    @cached_property
    def _digest(self) -> str:
        folder = Path(base_model.resolve(self._name))
        return base_model.folder_digest(folder) if folder.is_dir() else "not a folder"


class AdapterKeeper:
    """Brings an engine's adapters in line with the live versions. Adapters are named by digest."""

    def __init__(
        self,
        engine: Engine,
        store: ArtifactStore,
        *,
        base: OwnBase | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`base`: what adapters are held against; None: whatever the engine takes."""
        self._engine = engine
        self._store = store
        self._base = base
        self._monotonic = monotonic
        self._loaded: dict[str, str] = {}
        self._refused: dict[str, tuple[str, float]] = {}
        self._wanted_at: dict[str, float] = {}

    @property
    def loaded(self) -> Mapping[str, str]:
        """Loaded live versions and their digests."""
        return self._loaded

    @property
    def refused(self) -> Mapping[str, str]:
        """Live versions that cannot be loaded, and why."""
        # Copied first: the thread that loads may change it meanwhile.
        return {version: reason for version, (reason, _) in dict(self._refused).items()}

    def follow(self, live: Mapping[str, str]) -> None:
        """Load what `live` (version → digest) names; let go of what it no longer does."""
        now = self._monotonic()
        for version, digest in live.items():
            self._wanted_at[digest] = now
            self._load(version, digest, now)
        self._loaded = {
            version: digest for version, digest in live.items() if digest in self._engine.adapters
        }
        self._refused = {
            version: entry for version, entry in self._refused.items() if version in live
        }
        for digest in self._engine.adapters:
            if now - self._wanted_at.get(digest, now) >= UNLOAD_AFTER_S:
                self._engine.unload(digest)
                del self._wanted_at[digest]

    def _load(self, version: str, digest: str, now: float) -> None:
        if digest in self._engine.adapters:
            self._refused.pop(version, None)
            return
        refused = self._refused.get(version)
        if refused is not None and now - refused[1] < RETRY_AFTER_S:
            return
        try:
            folder = self._store.fetch(digest)
            if self._base is not None:
                self._base.refuse_others(folder)
            self._engine.load(digest, folder)
        except Exception as error:
            # Whatever a store or a file brings: the other versions are served all the same.
            reason = f"adapter {digest}: {error or type(error).__name__}"
            if refused is None:
                is_known = isinstance(error, KalimtakError | OSError)
                logger.error("version %s is refused: %s", version, reason, exc_info=not is_known)
            self._refused[version] = (reason, now)
        else:
            self._refused.pop(version, None)
