"""The keys of an identity provider: read late, kept, and not asked for too often."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from registry.clock import utc_now
from registry.crypto import Keyring
from registry.errors import SettingsError
from registry.settings_access import AuthSettings
from serving.access.tokens import (
    GOOD_FOR_S,
    JWKS_MAX_AGE_S,
    JWKS_MIN_AGE_S,
    JWKS_RETRY_S,
    LEEWAY_S,
    ProviderAwayError,
    ProviderKeys,
    TokenChecker,
    TokenError,
    make_signer,
    make_token,
)


class FakeTime:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class KeyFile:
    """A provider's key set, as a file that a test rewrites."""

    def __init__(self, path: Path) -> None:
        self.path = path
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
        self._jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key))

    def publish(self, *names: str) -> None:
        keys = [{**self._jwk, "kid": name} for name in names]
        self.path.write_text(json.dumps({"keys": keys}))


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "jwks.json")


@pytest.fixture
def keys(file: KeyFile, time: FakeTime) -> ProviderKeys:
    return ProviderKeys(AuthSettings(jwks_file=file.path, audience="kalimtak"), monotonic=time)


async def test_a_new_key_is_found_when_a_token_names_it(
    keys: ProviderKeys, file: KeyFile, time: FakeTime
) -> None:
    file.publish("first")
    assert await keys.get("first") is not None
    file.publish("first", "second")
    time.now += JWKS_MIN_AGE_S
    assert await keys.get("second") is not None


async def test_unknown_keys_do_not_make_us_ask_each_time(
    keys: ProviderKeys, file: KeyFile, time: FakeTime
) -> None:
    file.publish("first")
    assert await keys.get("unknown") is None
    file.publish("first", "unknown")
    time.now += JWKS_MIN_AGE_S - 1
    assert await keys.get("unknown") is None


async def test_a_withdrawn_key_is_forgotten(
    keys: ProviderKeys, file: KeyFile, time: FakeTime
) -> None:
    file.publish("first", "second")
    assert await keys.get("first") is not None
    file.publish("second")
    time.now += JWKS_MAX_AGE_S
    assert await keys.get("first") is None


async def test_a_provider_that_is_away_leaves_the_keys_that_were(
    keys: ProviderKeys, file: KeyFile, time: FakeTime
) -> None:
    file.publish("first")
    assert await keys.get("first") is not None
    file.path.write_text("out of order")
    time.now += JWKS_MAX_AGE_S
    assert await keys.get("first") is not None


async def test_a_provider_that_was_away_at_the_start_is_asked_again_soon(
    keys: ProviderKeys, file: KeyFile, time: FakeTime
) -> None:
    for text in (None, "[]"):
        if text is not None:
            file.path.write_text(text)
        with pytest.raises(ProviderAwayError, match="cannot be read"):
            await keys.get("first")
        time.now += JWKS_RETRY_S
    file.publish("first")
    assert await keys.get("first") is not None


async def test_a_new_key_of_a_provider_that_is_away_is_neither_good_nor_bad(
    keys: ProviderKeys, file: KeyFile, time: FakeTime
) -> None:
    file.publish("first")
    assert await keys.get("first") is not None
    file.path.unlink()
    time.now += JWKS_MIN_AGE_S
    for _ in range(2):
        with pytest.raises(ProviderAwayError):
            await keys.get("second")
    assert await keys.get("first") is not None


async def test_callers_who_come_while_the_keys_are_read_wait_for_them(
    keys: ProviderKeys, file: KeyFile, time: FakeTime
) -> None:
    for names in (["first"], ["first", "second"]):
        file.publish(*names)
        found = await asyncio.gather(*(keys.get(names[-1]) for _ in range(3)))
        assert None not in found
        time.now += JWKS_MIN_AGE_S


def test_without_secrets_the_installations_key_signs() -> None:
    one, other = Keyring(b"1" * 32), Keyring(b"2" * 32)
    assert make_signer(AuthSettings(), one) == make_signer(AuthSettings(), one)
    assert make_signer(AuthSettings(), one) != make_signer(AuthSettings(), other)


def test_of_several_secrets_one_must_be_named() -> None:
    several = AuthSettings.model_validate(
        {"secrets": {"one": "0123456789abcdef" * 2, "two": "fedcba9876543210" * 2}}
    )
    with pytest.raises(SettingsError, match="signing_key must name one of the secrets: one, two"):
        make_signer(several, Keyring(b"1" * 32)).sign({"sub": "alice"})


def test_a_provider_alone_signs_nothing_here(file: KeyFile) -> None:
    file.publish("first")
    assert not make_signer(
        AuthSettings(jwks_file=file.path, audience="kalimtak"), Keyring(b"1" * 32)
    ).secrets


@pytest.mark.parametrize("url", ["http://keys.example/jwks", "ftp://keys.example/jwks", "keys"])
def test_a_providers_keys_come_by_a_way_that_nobody_can_change(url: str) -> None:
    with pytest.raises(ValueError, match="https://"):
        AuthSettings(jwks_url=url, audience="kalimtak")


async def test_an_rsa_key_that_can_be_broken_signs_nothing(
    keys: ProviderKeys, file: KeyFile
) -> None:
    short = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(short.public_key()))
    file.path.write_text(json.dumps({"keys": [{**jwk, "kid": "short"}]}))
    claims = {"sub": "alice", "exp": 2_000_000_000, "aud": "kalimtak"}
    with pytest.warns(match="1024 bits"):
        token = jwt.encode(claims, short, algorithm="RS256", headers={"kid": "short"})
    settings = AuthSettings(jwks_file=file.path, audience="kalimtak")
    checker = TokenChecker(settings, make_signer(settings, Keyring(b"1" * 32)), keys)
    with pytest.raises(TokenError, match="not valid"):
        await checker.claims(token)


@dataclass
class FakeClock:
    """A clock that a test moves."""

    now: datetime = field(default_factory=utc_now)

    def __call__(self) -> datetime:
        return self.now


async def test_a_signature_is_looked_at_once_for_many_requests_but_its_end_each_time(
    keys: ProviderKeys, time: FakeTime
) -> None:
    clock, settings = FakeClock(), AuthSettings()
    signer = make_signer(settings, Keyring(b"1" * 32))
    checker = TokenChecker(settings, signer, keys, clock=clock, monotonic=time)
    token = make_token(
        signer, settings, subject="alice", role="user", now=clock(), lifetime=timedelta(minutes=5)
    )
    first = await checker.claims(token)
    assert await checker.claims(token) is first
    time.now += GOOD_FOR_S + 1
    again = await checker.claims(token)
    assert again == first
    assert again is not first
    clock.now += timedelta(minutes=5, seconds=LEEWAY_S)
    with pytest.raises(TokenError, match="expired"):
        await checker.claims(token)


async def test_a_bad_token_is_never_remembered(keys: ProviderKeys) -> None:
    settings = AuthSettings()
    checker = TokenChecker(settings, make_signer(settings, Keyring(b"1" * 32)), keys)
    other = make_signer(settings, Keyring(b"2" * 32))
    token = make_token(
        other, settings, subject="eve", role="admin", now=utc_now(), lifetime=timedelta(minutes=5)
    )
    for _ in range(2):
        with pytest.raises(TokenError, match="not valid"):
            await checker.claims(token)
