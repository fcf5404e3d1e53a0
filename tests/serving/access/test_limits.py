"""Rate limits: who is counted with whom, what a refusal says, and that a failure refuses nobody."""

from __future__ import annotations

import asyncio
import logging
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from registry.crypto import Keyring
from registry.errors import SettingsError
from registry.settings import Settings, load_settings
from registry.settings_access import LimitSettings
from serving.access.auth import Principal, principal
from serving.access.limits import RETRY_S, Limiter
from serving.problems import ProblemError
from tests.serving.access.test_window_store import FakeClock
from tests.serving.conftest import Installation
from tests.serving.router import running_router
from tests.support.network import free_port

ANN = Principal("ann", "user", False)

KEYRING = Keyring(b"k" * 32)


@asynccontextmanager
async def limiter_of(
    home: Path, limits: LimitSettings, clock: FakeClock | None = None
) -> AsyncIterator[Limiter]:
    limiter = Limiter(Settings(home=home, limits=limits), KEYRING, clock=clock or FakeClock())
    yield limiter
    await limiter.close()


async def accepted(limiter: Limiter, caller: Principal, address: str = "10.0.0.1") -> bool:
    try:
        await limiter.check(caller, address)
    except ProblemError:
        return False
    return True


async def test_every_caller_has_a_window_of_his_own(tmp_path: Path) -> None:
    key = Principal(None, "user", True, key_prefix="kk_a")
    callers = [
        (ANN, "10.0.0.1"),
        (Principal("bob", "user", False), "10.0.0.1"),
        (key, "10.0.0.1"),
        (Principal(None, "user", True, key_prefix="kk_b"), "10.0.0.1"),
        (Principal(None, "user", True), "10.0.0.1"),
        (Principal(None, "user", True), "10.0.0.2"),
    ]
    async with limiter_of(tmp_path, LimitSettings(user="1/minute", service="1/minute")) as limiter:
        assert all([await accepted(limiter, *caller) for caller in callers])
        assert not any([await accepted(limiter, *caller) for caller in callers])
        assert not await accepted(limiter, ANN, "10.9.9.9")
        assert not await accepted(limiter, key, "10.9.9.9")


async def test_every_role_has_a_limit_of_its_own_and_none_is_no_limit(tmp_path: Path) -> None:
    limits = LimitSettings(user="2/minute", reviewer="3/minute", service="4/minute", admin=None)
    async with limiter_of(tmp_path, limits) as limiter:
        for caller, limit in [
            (ANN, 2),
            (Principal("ann", "reviewer", False), 3),
            (Principal(None, "user", True, key_prefix="kk"), 4),
            (Principal("ann", "admin", True), 10),
            (Principal(None, "admin", True), 10),
        ]:
            assert sum([await accepted(limiter, caller) for _ in range(10)]) == limit


async def test_a_refusal_says_when_to_come_back_and_means_it(tmp_path: Path) -> None:
    clock = FakeClock()
    async with limiter_of(tmp_path, LimitSettings(user="2/minute"), clock) as limiter:
        await limiter.check(ANN, None)
        clock.now += 10.5
        await limiter.check(ANN, None)
        clock.now += 20
        with pytest.raises(ProblemError) as refused:
            await limiter.check(ANN, None)
        assert refused.value.status == 429
        assert "2 requests in 60 s" in refused.value.detail
        assert refused.value.headers == {
            "Retry-After": "30",
            "RateLimit-Limit": "2",
            "RateLimit-Remaining": "0",
            "RateLimit-Reset": "30",
        }
        clock.now += 29
        assert not await accepted(limiter, ANN)
        clock.now += 1
        assert await accepted(limiter, ANN)
        assert not await accepted(limiter, ANN)


async def test_routers_of_one_installation_share_the_limits(installation: Installation) -> None:
    limits = LimitSettings(admin="3/minute")
    settings = installation.settings.model_copy(update={"limits": limits})
    async with running_router(settings) as one, running_router(settings) as two:
        answers = [
            await router.client.get("/api/history/u") for router in (one, two, one, two, two)
        ]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        refused = answers[-1]
        assert refused.headers["content-type"].startswith("application/problem+json")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.headers["ratelimit-limit"] == "3"
        for path in ("/healthz", "/readyz"):
            assert (await two.client.get(path)).status_code == 200
        assert (await two.generate()).status_code == 429


async def test_the_caller_is_whom_authentication_names(installation: Installation) -> None:
    settings = installation.settings.model_copy(update={"limits": LimitSettings(user="1/minute")})
    async with running_router(settings) as router:
        transport = router.client._transport
        assert isinstance(transport, httpx.ASGITransport)
        for name, status in [("ann", 200), ("bob", 200), ("ann", 429)]:
            caller = Principal(name, "user", False)
            transport.app.dependency_overrides[principal] = lambda caller=caller: caller  # type: ignore[attr-defined]
            assert (await router.client.get(f"/api/history/{name}")).status_code == status


async def test_who_erases_himself_has_no_new_window(installation: Installation) -> None:
    settings = installation.settings.model_copy(update={"limits": LimitSettings(user="3/minute")})
    async with running_router(settings) as router:
        transport = router.client._transport
        assert isinstance(transport, httpx.ASGITransport)
        ann = Principal("ann", "user", False)
        transport.app.dependency_overrides[principal] = lambda: ann  # type: ignore[attr-defined]
        answers = [await router.client.delete("/api/users/ann") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]


async def test_a_storage_that_fails_refuses_nobody_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    (tmp_path / "run").mkdir()
    async with limiter_of(tmp_path, LimitSettings(user="1/minute"), clock) as limiter:
        (tmp_path / "run").rmdir()
        (tmp_path / "run").write_text("in the way")
        for _ in range(3):
            assert await accepted(limiter, ANN)
            clock.now += RETRY_S
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        (tmp_path / "run").unlink()
        (tmp_path / "run").mkdir()
        assert [await accepted(limiter, ANN) for _ in range(2)] == [True, False]
        assert "hold again" in caplog.text


async def test_a_redis_that_is_away_refuses_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    limits = LimitSettings(user="1/minute", storage_url=f"redis://127.0.0.1:{free_port()}")
    async with limiter_of(tmp_path, limits) as limiter:
        assert all([await accepted(limiter, ANN) for _ in range(3)])
    assert len(caplog.records) == 1


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("no redis-server on this machine")
    port = free_port()
    process = subprocess.Popen(
        [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", tmp_path],
        stdout=subprocess.DEVNULL,
    )
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except ConnectionRefusedError:
            assert process.poll() is None
    yield f"redis://127.0.0.1:{port}"
    process.terminate()
    process.wait()


async def test_redis_is_shared_between_machines(tmp_path: Path, redis_url: str) -> None:
    limits = LimitSettings(user="3/second", storage_url=redis_url)
    one = Limiter(Settings(home=tmp_path / "one", limits=limits), KEYRING)
    two = Limiter(Settings(home=tmp_path / "two", limits=limits), KEYRING)
    assert sum([await accepted(limiter, ANN) for limiter in (one, two, one, two)]) == 3
    with pytest.raises(ProblemError) as refused:
        await one.check(ANN, None)
    assert refused.value.headers["Retry-After"] == "1"
    await asyncio.sleep(1.1)
    assert await accepted(two, ANN)
    await one.close()
    await two.close()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("USER", "60"),
        ("USER", "60/fortnight"),
        ("REVIEWER", "0/minute"),
        ("SERVICE", "1/second;5/minute"),
        ("ADMIN", ""),
        ("STORAGE_URL", "memcached://host"),
    ],
)
def test_an_impossible_limit_is_refused_when_settings_load(
    tmp_path: Path, name: str, value: str
) -> None:
    with pytest.raises(SettingsError, match=f"limits.{name.lower()}"):
        load_settings({f"KALIMTAK_LIMITS__{name}": value}, directory=tmp_path)


def test_no_limit_can_be_set(tmp_path: Path) -> None:
    environment = {"KALIMTAK_LIMITS__USER": "none", "KALIMTAK_LIMITS__ADMIN": "500 per 2 hours"}
    settings = load_settings(environment, directory=tmp_path)
    assert (settings.limits.user, settings.limits.admin) == (None, "500 per 2 hours")
    assert Settings.model_validate(settings.model_dump(mode="json")) == settings
