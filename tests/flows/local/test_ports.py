"""Whose ports, and whether they can be had."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from flows.errors import LocalError
from flows.local import ports
from registry.errors import SettingsError
from registry.settings import Settings
from tests.support.network import free_port


def at(settings: Settings, host: str, port: int) -> Settings:
    serving = settings.serving.model_copy(update={"host": host, "port": port})
    return settings.model_copy(update={"serving": serving})


@pytest.mark.parametrize("check", [ports.check, ports.check_endpoint])
def test_a_taken_port_is_named_with_its_setting(
    settings: Settings, check: Callable[[Settings], None]
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(LocalError, match=rf"port {port} is in use: set serving\.port"):
            check(at(settings, "127.0.0.1", port))


@pytest.mark.parametrize(
    ("host", "complaint"),
    [
        ("192.0.2.1", "Cannot assign requested address; set serving.host"),
        ("no-such-host.invalid", "set serving.host to an address of this machine"),
    ],
)
def test_an_address_of_another_machine_is_not_told_as_a_taken_port(
    settings: Settings, host: str, complaint: str
) -> None:
    with pytest.raises(LocalError, match=rf"serving cannot listen on '{host}'.*{complaint}"):
        ports.check_endpoint(at(settings, host, free_port()))


def test_an_ipv6_loopback_is_probed_as_what_it_is(settings: Settings) -> None:
    with socket.socket(socket.AF_INET6) as other:
        try:
            other.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(LocalError, match=f"port {port} is in use"):
            ports.check_endpoint(at(settings, "::1", port))
    assert at(settings, "::1", port).serving.url == f"http://[::1]:{port}"


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("http://127.0.0.1:4200/api", True),
        ("http://127.0.0.1:4200/api/", True),
        ("http://localhost:4200/api", True),
        ("http://localhost:4201/api", False),
        ("https://localhost:4200/api", False),
        ("http://192.0.2.1:4200/api", False),
    ],
)
def test_our_own_prefect_is_known_however_it_is_written(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, url: str, own: bool
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", url)
    assert ports.own_prefect(settings) is own


def test_prefect_is_not_opened_to_the_network_without_a_password(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ports.PREFECT_PASSWORD, raising=False)
    prefect = settings.prefect.model_copy(update={"host": "0.0.0.0"})
    open_to_all = settings.model_copy(update={"prefect": prefect})
    with pytest.raises(SettingsError, match=r"prefect.host = '0.0.0.0'"):
        ports.check(open_to_all)
