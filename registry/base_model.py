"""Where a base model's files are, told by name, for whoever loads it."""

from importlib.resources import files
from pathlib import Path

from registry.errors import SettingsError

EMBEDDED = "embedded"
"""The name of the model that ships with the project."""

_EMBEDDED_FOLDER = ("base_model", "weights")


def resolve(name: str) -> str:
    """What `from_pretrained` takes for `name`: a folder for "embedded", else `name` itself.

    Raises `SettingsError` where the embedded model's files are missing.
    """
    if name != EMBEDDED:
        return name
    folder = Path(str(files("training").joinpath(*_EMBEDDED_FOLDER)))
    if not (folder / "config.json").is_file():
        raise SettingsError(
            f"the embedded base model is not in {folder}: build it, or set training.base_model"
        )
    return str(folder)
