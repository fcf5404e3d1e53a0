"""Content-addressed artifacts: folders published under their digest, verified when fetched.

A store is any fsspec URL (`file:///…`, `s3://…`). A folder's digest is the SHA-256 of its
sorted file names and their SHA-256, so that the same content has the same name everywhere.
"""

import hashlib
import json
import os
import re
import shutil
import uuid
from datetime import datetime
from pathlib import Path

import fsspec
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from registry.errors import ArtifactError, DigestError
from registry.folders import sync, sync_tree

_ENTRY = re.compile(r"[0-9a-f]{64}|\.[0-9a-f]{64}\.[0-9a-f]{8}")
INDEX = "index.json"
"""File names and their SHA-256, beside the content; written last."""


def digest_of(folder: Path) -> str:
    """The digest of a local folder's content. Raises `ArtifactError` where it has no file."""
    return _digest_of_index(_index(folder))


class ArtifactStore:
    """Publishes folders to a URL and fetches them into a local cache."""

    def __init__(self, url: str, *, cache: Path) -> None:
        self.url = url.rstrip("/")
        self._cache = cache
        filesystem: fsspec.AbstractFileSystem
        filesystem, root = url_to_fs(self.url)
        self._filesystem, self._root = filesystem, root.rstrip("/")

    def publish(self, folder: Path) -> str:
        """Copy `folder` into the store and return its digest. Publishing twice does no harm."""
        index = _index(folder)
        digest = _digest_of_index(index)
        target = f"{self._root}/{digest}"
        if self._filesystem.exists(f"{target}/{INDEX}"):
            return digest
        # Uploaded beside its place and moved there whole: no reader sees a part of it.
        temporary = f"{self._root}/.{digest}.{uuid.uuid4().hex[:8]}"
        self._filesystem.makedirs(temporary, exist_ok=True)
        for name in index:
            destination = f"{temporary}/{name}"
            self._filesystem.makedirs(destination.rpartition("/")[0], exist_ok=True)
            self._filesystem.put_file(str(folder / name), destination)
        self._filesystem.pipe_file(f"{temporary}/{INDEX}", _encode(index))
        is_local = isinstance(self._filesystem, LocalFileSystem)
        if is_local:
            # Whoever is told the digest keeps it: a power cut must not empty the files behind it.
            sync_tree(Path(temporary))
        try:
            self._filesystem.mv(temporary, target, recursive=True)
        except OSError as error:
            if not self._filesystem.exists(f"{target}/{INDEX}"):
                raise ArtifactError(f"cannot publish {folder} to {self.url}: {error}") from error
            self._filesystem.rm(temporary, recursive=True)
        if is_local:
            sync(Path(self._root))
        return digest

    def fetch(self, digest: str) -> Path:
        """A local folder with the verified content of `digest`.

        Raises `ArtifactError` where it is missing, `DigestError` where it was altered.
        """
        local = self._cache / digest
        if not local.exists():
            self._download(digest, local)
        try:
            found = digest_of(local)
        except ArtifactError as error:
            raise DigestError(f"artifact {digest} is damaged in {local}: {error}") from error
        if found != digest:
            shutil.rmtree(local)
            raise DigestError(
                f"artifact {digest} has the content of {found}: it was altered or cut short"
            )
        return local

    def exists(self, digest: str) -> bool:
        """Whether the store holds `digest`."""
        return bool(self._filesystem.exists(f"{self._root}/{digest}/{INDEX}"))

    def entries(self) -> dict[str, datetime]:
        """What lies in the store, unfinished uploads included, and when each came there."""
        try:
            found = self._filesystem.ls(self._root, detail=False)
        except FileNotFoundError:
            return {}
        names = [name for path in found if _ENTRY.fullmatch(name := path.rpartition("/")[2])]
        return {name: moment for name in names if (moment := self._changed_at(name)) is not None}

    def remove(self, name: str) -> bool:
        """Delete an entry, and what was fetched of it; whether the store had it."""
        shutil.rmtree(self._cache / name, ignore_errors=True)
        target = f"{self._root}/{name}"
        if not self._filesystem.exists(target):
            return False
        self._filesystem.rm(target, recursive=True)
        return True

    def _changed_at(self, name: str) -> datetime | None:
        """Object stores know no time of a folder; an unfinished upload there has none."""
        for path in (f"{self._root}/{name}/{INDEX}", f"{self._root}/{name}"):
            try:
                moment: datetime = self._filesystem.modified(path)
            except (FileNotFoundError, KeyError, NotImplementedError):
                continue
            return moment
        return None

    def _download(self, digest: str, local: Path) -> None:
        source = f"{self._root}/{digest}"
        try:
            index = json.loads(self._filesystem.cat_file(f"{source}/{INDEX}"))
        except FileNotFoundError as error:
            raise ArtifactError(f"artifact {digest} is not in {self.url}") from error
        except ValueError as error:
            raise DigestError(f"artifact {digest} has an unreadable index") from error
        temporary = local.with_name(f".{digest}.{uuid.uuid4().hex[:8]}")
        try:
            for name in index:
                destination = temporary / name
                if not destination.resolve().is_relative_to(temporary.resolve()):
                    raise DigestError(f"artifact {digest} names a file outside itself: {name!r}")
                destination.parent.mkdir(parents=True, exist_ok=True)
                self._filesystem.get_file(f"{source}/{name}", str(destination))
            os.replace(temporary, local)
        except FileNotFoundError as error:
            raise DigestError(f"artifact {digest} misses {error.filename}") from error
        except OSError:
            if not local.exists():  # another process may have fetched it meanwhile
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _index(folder: Path) -> dict[str, str]:
    index = {
        str(path.relative_to(folder)): _file_digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != INDEX
    }
    if not index:
        raise ArtifactError(f"{folder} holds no file")
    return index


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _encode(index: dict[str, str]) -> bytes:
    return json.dumps(index, sort_keys=True).encode()


def _digest_of_index(index: dict[str, str]) -> str:
    return hashlib.sha256(_encode(index)).hexdigest()
