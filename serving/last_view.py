"""What was served last, in a file: for a process that starts while the database is away."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from registry.deployment import DesiredState

FILE = "last_view.json"

_Views = TypeAdapter(dict[str, DesiredState])

logger = logging.getLogger(__name__)


class LastView:
    """The file in a folder that all processes of this machine's installation share."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE

    def remember(self, views: Mapping[str, DesiredState]) -> None:
        """Write down what each workload serves. A disk that does not take it is logged."""
        temporary = self._path.with_name(f"{FILE}.{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
            temporary.write_bytes(_Views.dump_json(dict(views)))
            temporary.replace(self._path)
        except OSError as error:
            logger.warning("%s cannot be written: %s", self._path, error)

    def recall(self) -> dict[str, DesiredState]:
        """What was served last; empty where nobody knows."""
        try:
            return _Views.validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValidationError) as error:
            logger.warning("%s cannot be read: %s", self._path, error)
            return {}
