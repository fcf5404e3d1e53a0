"""Keeps the adapters of all live versions loaded, and those that cannot be, refused."""

import logging
import time
from collections.abc import Callable, Mapping

from registry.artifacts import ArtifactStore
from registry.errors import KalimtakError
from serving.engine.protocol import Engine

UNLOAD_AFTER_S = 5.0
"""Routers may still send to a version this long after it has ceased to be live."""
RETRY_AFTER_S = 5.0
"""A refused version is tried again: its artifact may have been out of reach."""

logger = logging.getLogger(__name__)


class AdapterKeeper:
    """Brings an engine's adapters in line with the live versions. Adapters are named by digest."""

    def __init__(
        self,
        engine: Engine,
        store: ArtifactStore,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._store = store
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
        return {version: reason for version, (reason, _) in self._refused.items()}

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
            self._engine.load(digest, self._store.fetch(digest))
        except (KalimtakError, OSError) as error:
            if refused is None:
                logger.error("version %s is refused: adapter %s: %s", version, digest, error)
            self._refused[version] = (f"adapter {digest}: {error}", now)
        else:
            self._refused.pop(version, None)
