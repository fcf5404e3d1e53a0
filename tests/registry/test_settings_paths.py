"""Paths among the settings."""

from pathlib import Path

import pytest

from registry.errors import SettingsError
from registry.settings import Settings, load_settings


def paths(settings: Settings) -> dict[str, object]:
    return {
        "home": settings.home,
        "database_url": settings.database_url,
        "artifacts_url": settings.artifacts_url,
        "anchor": settings.audit.anchor,
        "jwks_file": settings.auth.jwks_file,
        "base_model": settings.training.base_model,
        "recipe": settings.training.recipe,
        "suites": settings.training.suites,
        "rehearsal_file": settings.curation.rehearsal_file,
        "words_file": settings.curation.moderation.words_file,
    }


def load(folder: Path, **values: str) -> Settings:
    return load_settings(
        {
            "KALIMTAK_HOME": values["home"],
            "KALIMTAK_DATABASE_URL": values["database"],
            "KALIMTAK_ARTIFACTS_URL": values["artifacts"],
            "KALIMTAK_AUDIT__ANCHOR": values["anchor"],
            "KALIMTAK_AUTH__AUDIENCE": "us",
            "KALIMTAK_AUTH__JWKS_FILE": "keys.json",
            "KALIMTAK_TRAINING__BASE_MODEL": values["base"],
            "KALIMTAK_TRAINING__RECIPE": values["recipe"],
            "KALIMTAK_TRAINING__SUITES": '["a.jsonl", "/b.jsonl"]',
            "KALIMTAK_CURATION__REHEARSAL_FILE": "earlier.jsonl",
            "KALIMTAK_CURATION__MODERATION__WORDS_FILE": "words.txt",
        },
        directory=folder,
    )


def test_relative_paths_are_taken_from_one_folder(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    relative = load(
        tmp_path,
        home="data",
        database="sqlite:///data/k.db",
        artifacts="file://kept",
        anchor="heads.json",
        base="model",
        recipe="mine.toml",
    )
    assert paths(relative) == {
        "home": tmp_path / "data",
        "database_url": f"sqlite:///{tmp_path}/data/k.db",
        "artifacts_url": f"file://{tmp_path}/kept",
        "anchor": f"{tmp_path}/heads.json",
        "jwks_file": tmp_path / "keys.json",
        "base_model": f"{tmp_path}/model",
        "recipe": f"{tmp_path}/mine.toml",
        "suites": (tmp_path / "a.jsonl", Path("/b.jsonl")),
        "rehearsal_file": f"{tmp_path}/earlier.jsonl",
        "words_file": f"{tmp_path}/words.txt",
    }


def test_what_is_no_relative_path_stays(tmp_path: Path) -> None:
    (tmp_path / "embedded").mkdir()
    given = {
        "home": "/data",
        "database": "postgresql://me@host/db",
        "artifacts": "s3://bucket/kept",
        "anchor": "https://example.org/heads",
        "base": "embedded",
        "recipe": "tiny_cpu",
    }
    found = paths(load(tmp_path, **given))
    assert found["home"] == Path("/data")
    assert list(found.values())[1:4] == [given["database"], given["artifacts"], given["anchor"]]
    assert (found["base_model"], found["recipe"]) == ("embedded", "tiny_cpu")
    named = load_settings({"KALIMTAK_TRAINING__BASE_MODEL": "Qwen/Qwen3-0.6B"}, directory=tmp_path)
    assert named.training.base_model == "Qwen/Qwen3-0.6B"


def test_a_tilde_is_the_users_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    (tmp_path / "kalimtak.toml").write_text('home = "~/kal"')
    settings = load_settings({}, directory=tmp_path)
    assert settings.home == Path("/home/me/kal")


def test_a_home_that_no_database_url_can_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"what\?': no database URL can name"):
        load_settings({"KALIMTAK_HOME": "what?"}, directory=tmp_path)
