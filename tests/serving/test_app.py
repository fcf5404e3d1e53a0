"""The application as a file for Serve: what it says, and what it leaves to the cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from registry.settings import load_settings
from serving.app import ServeArgs, serve_config

SECRET = {
    "KALIMTAK_DATABASE_URL": "postgresql://me:hunter2@host/db",
    "KALIMTAK_LIMITS__STORAGE_URL": "redis://:hunter2@host",
    "KALIMTAK_TRAINING__JUDGE__API_KEY": "hunter2",
    "KALIMTAK_TRAINING__JUDGE__MODEL": "judge",
}


def test_the_file_holds_no_secret_and_the_cluster_keeps_its_own(tmp_path: Path) -> None:
    own = load_settings(SECRET, directory=tmp_path)
    (application,) = serve_config(own)["applications"]
    assert "hunter2" not in json.dumps(application)
    assert ServeArgs.model_validate(application["args"]).apply(own) == own


@pytest.mark.parametrize("url", ["postgresql://me@host/db", "sqlite:////somewhere/k.db", None])
def test_what_is_no_secret_is_in_it(tmp_path: Path, url: str | None) -> None:
    given = {"KALIMTAK_SERVING__NUM_ROUTERS": "3"}
    if url is not None:
        given["KALIMTAK_DATABASE_URL"] = url
    (application,) = serve_config(load_settings(given, directory=tmp_path))["applications"]
    assert application["args"]["database_url"] == url
    assert application["args"]["serving"]["num_routers"] == 3
