"""Where checkpoints go: a folder, or any URL that pyarrow or fsspec knows."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from fsspec.core import url_to_fs
from pyarrow import fs as filesystems

from training.errors import CheckpointError


def open_storage(path_or_url: str) -> tuple[str, filesystems.FileSystem | None]:
    """What Ray Train takes as storage_path and storage_filesystem.

    pyarrow opens what it knows by itself (s3://, gs://, abfs://, file://), fsspec the rest.
    CheckpointError where neither can.
    """
    if "://" not in path_or_url:
        return str(Path(path_or_url).resolve()), None
    try:
        filesystems.FileSystem.from_uri(path_or_url)
    except (pa.ArrowInvalid, OSError):
        return _by_fsspec(path_or_url)
    return path_or_url, None


def discard(path_or_url: str) -> None:
    """Delete a folder that `open_storage` opens, with all that is in it, where it is there."""
    path, filesystem = open_storage(path_or_url)
    if filesystem is None:
        filesystem, path = filesystems.FileSystem.from_uri(path)
    if filesystem.get_file_info(path).type is filesystems.FileType.Directory:
        filesystem.delete_dir(path)


def _by_fsspec(url: str) -> tuple[str, filesystems.FileSystem]:
    try:
        found, path = url_to_fs(url)
    except (ValueError, ImportError, OSError) as error:
        raise CheckpointError(
            f"Checkpoints cannot be kept at {url}: {error}. Give a folder or an fsspec URL."
        ) from error
    return path, filesystems.PyFileSystem(filesystems.FSSpecHandler(found))
