"""The demo's own folder and settings."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from flows.demo.folder import own_folder
from flows.demo.settings import prepare
from flows.errors import LocalError
from registry.settings import Settings, load_settings
from tests.support.network import free_port


@pytest.fixture
def demo(settings: Settings) -> Settings:
    serving = settings.serving.model_copy(update={"port": free_port()})
    return prepare(settings.model_copy(update={"serving": serving}))


def test_what_an_earlier_demo_left_is_removed(demo: Settings) -> None:
    for _ in range(2):
        with own_folder(demo):
            assert not (demo.home / "report.html").exists()
            (demo.home / "report.html").touch()


def test_a_folder_that_no_demo_made_is_left_alone(demo: Settings) -> None:
    demo.home.mkdir(parents=True)
    (demo.home / "thesis.tex").touch()
    with pytest.raises(LocalError, match="was not made by a demo"):
        own_folder(demo).__enter__()
    assert (demo.home / "thesis.tex").exists()


def test_a_demo_that_runs_keeps_its_folder(demo: Settings) -> None:
    with own_folder(demo):
        (demo.home / "kalimtak.db").touch()
        with pytest.raises(LocalError, match="another 'kalimtak demo' is at work here"):
            own_folder(demo).__enter__()
        assert (demo.home / "kalimtak.db").exists()


def test_a_taken_port_costs_no_report(demo: Settings) -> None:
    with own_folder(demo):
        (demo.home / "report.html").touch()
    with socket.socket() as other:
        other.bind((demo.serving.host, demo.serving.port))
        other.listen()
        with pytest.raises(LocalError, match="is in use"):
            own_folder(demo).__enter__()
    assert (demo.home / "report.html").exists()


def test_the_people_of_a_demo_need_no_credentials_wherever_the_endpoint_is(tmp_path: Path) -> None:
    strict = {
        "KALIMTAK_AUTH__ENABLED": "true",
        "KALIMTAK_LIMITS__ADMIN": "1/minute",
        "KALIMTAK_SERVING__HOST": "0.0.0.0",
    }
    demo = prepare(load_settings(strict, directory=tmp_path))
    assert (demo.auth.enabled, demo.limits.admin, demo.serving.host) == (False, None, "127.0.0.1")
