"""Where a base model's files are, told by name, for whoever loads it."""

import hashlib
from importlib.resources import files
from pathlib import Path

from registry.errors import SettingsError

EMBEDDED = "embedded"
"""The name of the model that ships with the project."""

_DIGEST_SUFFIXES = (".json", ".safetensors", ".jinja", ".model", ".txt")
_CHUNK_BYTES = 1 << 20
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


def folder_digest(folder: Path) -> str:
    """`sha256:…` over a model folder's files. Raises `SettingsError` where there are none.

    Notes and manifests beside the model do not count, only what `from_pretrained` reads.
    """
    names = sorted(
        path
        for path in folder.glob("*")
        if path.suffix in _DIGEST_SUFFIXES and path.name != "manifest.json"
    )
    if not names:
        raise SettingsError(f"{folder} holds no model files")
    digest = hashlib.sha256()
    for path in names:
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"
