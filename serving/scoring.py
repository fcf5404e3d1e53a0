"""Which fitted scorer scores the answers of each workload, followed by polling.

A scorer that cannot be loaded is refused, by name and with the reason, and the rule scores in
its place: an answer is never lost for want of a score.
"""

import asyncio
import logging
from collections.abc import Mapping

from registry import scorer, scorers
from registry.artifacts import ArtifactStore
from registry.db import Database
from registry.errors import ArtifactError
from registry.features import Sample
from registry.quality import ActiveScorer, Score, judge
from registry.scorers import ActiveRow

RETRY_LOOKS = 40
"""A refused scorer is tried again after so many looks: its artifact may have come back."""

logger = logging.getLogger(__name__)


class Scorers:
    """The active scorers of one process."""

    def __init__(self, database: Database, store: ArtifactStore) -> None:
        self._database = database
        self._store = store
        self._active: dict[str, ActiveScorer] = {}
        self._refused: dict[str, str] = {}
        self._looks = 0

    @property
    def refused(self) -> Mapping[str, str]:
        """Scorers that should score and cannot be loaded, and why."""
        return self._refused

    def score(self, workload: str, sample: Sample) -> Score | None:
        """What an answer in `workload` is worth."""
        return judge(sample, self._active.get(workload))

    def active(self, workload: str) -> ActiveScorer | None:
        """Who scores; None: the rule."""
        return self._active.get(workload)

    async def refresh(self) -> None:
        """One look at which scorers are active."""
        await asyncio.to_thread(self.follow)

    def follow(self) -> None:
        """The same, in this thread."""
        with self._database.read() as session:
            wanted = scorers.active(session)
        self._looks += 1
        if self._looks % RETRY_LOOKS == 0:
            self._refused = {}
        versions = {row.version for row in wanted.values()}
        self._refused = {name: why for name, why in self._refused.items() if name in versions}
        found = {workload: self._loaded(workload, row) for workload, row in wanted.items()}
        self._active = {workload: one for workload, one in found.items() if one is not None}

    def _loaded(self, workload: str, row: ActiveRow) -> ActiveScorer | None:
        current = self._active.get(workload)
        if current is not None and current.version == row.version:
            return current
        if row.version in self._refused:
            return None
        try:
            loaded = ActiveScorer(row.version, scorer.load(self._store.fetch(row.digest)))
        except (ArtifactError, OSError) as error:
            logger.warning("the rule scores '%s': %s is refused: %s", workload, row.version, error)
            self._refused[row.version] = str(error)
            return None
        logger.info("answers in '%s' are scored by %s", workload, row.version)
        return loaded
