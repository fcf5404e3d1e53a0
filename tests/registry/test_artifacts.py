import os
from pathlib import Path

import pytest

from registry.artifacts import ArtifactStore, digest_of
from registry.errors import ArtifactError, DigestError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "adapter"
    (found / "deep").mkdir(parents=True)
    (found / "adapter_model.safetensors").write_bytes(b"weights")
    (found / "deep" / "config.json").write_text("{}")
    return found


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore((tmp_path / "store").as_uri(), cache=tmp_path / "cache")


def test_what_is_published_comes_back(store: ArtifactStore, folder: Path) -> None:
    digest = store.publish(folder)
    fetched = store.fetch(digest)
    assert (fetched / "deep" / "config.json").read_text() == "{}"
    assert digest_of(fetched) == digest == store.publish(folder)


def test_nothing_half_written_is_left(store: ArtifactStore, folder: Path, tmp_path: Path) -> None:
    digest = store.publish(folder)
    assert [path.name for path in (tmp_path / "store").iterdir()] == [digest]


def test_all_is_on_the_disk_before_it_has_its_name(
    store: ArtifactStore, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    sync = os.fsync

    def note(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    digest = store.publish(folder)
    *content, root = synced
    assert root == tmp_path / "store"
    # By the names that they had until then.
    assert {path.name for path in content if path.suffix} >= {
        "adapter_model.safetensors",
        "config.json",
        "index.json",
    }
    assert len(content) == len(list((tmp_path / "store" / digest).rglob("*"))) + 1


def test_the_digest_depends_on_names_and_content(folder: Path) -> None:
    before = digest_of(folder)
    (folder / "deep" / "config.json").rename(folder / "deep" / "other.json")
    assert digest_of(folder) != before


@pytest.mark.parametrize("damage", ["edit", "truncate", "delete", "add_to_cache"])
def test_a_damaged_artifact_is_refused_with_its_digest(
    store: ArtifactStore, folder: Path, tmp_path: Path, damage: str
) -> None:
    digest = store.publish(folder)
    weights = tmp_path / "store" / digest / "adapter_model.safetensors"
    if damage == "edit":
        weights.write_bytes(b"weighty")
    elif damage == "truncate":
        weights.write_bytes(b"")
    elif damage == "delete":
        weights.unlink()
    else:
        (store.fetch(digest) / "extra.bin").write_bytes(b"x")
    with pytest.raises(DigestError, match=digest):
        store.fetch(digest)


def test_a_cache_that_was_damaged_is_fetched_anew(store: ArtifactStore, folder: Path) -> None:
    digest = store.publish(folder)
    (store.fetch(digest) / "adapter_model.safetensors").write_bytes(b"broken")
    with pytest.raises(DigestError):
        store.fetch(digest)
    assert digest_of(store.fetch(digest)) == digest


def test_a_missing_artifact_says_where_it_was_sought(store: ArtifactStore) -> None:
    with pytest.raises(ArtifactError, match="store"):
        store.fetch("0" * 64)


def test_an_empty_folder_is_no_artifact(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="no file"):
        store.publish(tmp_path / "empty")
