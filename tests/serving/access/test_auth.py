"""Who gets in: tokens, API keys, and all that looks like them."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from registry import keys
from registry.clock import utc_now
from registry.settings_access import AuthSettings, LimitSettings
from tests.serving.conftest import Installation
from tests.serving.router import Router, running_router

NEW, OLD = "n3w-" + "0123456789abcdef" * 2, "0ld-" + "fedcba9876543210" * 2


@pytest.fixture(scope="module")
def provider() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def settings(provider: rsa.RSAPrivateKey, tmp_path: Path) -> AuthSettings:
    """Two secrets of our own, and a provider whose key set also holds a secret by mistake."""
    public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(provider.public_key()))
    leaked = {"kty": "oct", "kid": "leaked", "k": base64.urlsafe_b64encode(NEW.encode()).decode()}
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": [{**public, "kid": "provider"}, leaked]}))
    return AuthSettings.model_validate(
        {
            "enabled": True,
            "secrets": {"new": NEW, "old": OLD},
            "signing_key": "new",
            "jwks_file": file,
            "issuer": "https://people.example",
            "audience": "kalimtak",
        }
    )


@pytest.fixture
async def router(installation: Installation, settings: AuthSettings) -> AsyncIterator[Router]:
    with_auth = installation.settings.model_copy(update={"auth": settings})
    async with running_router(with_auth) as running:
        yield running


def claims(**changes: Any) -> dict[str, Any]:
    now = utc_now()
    good = {
        "sub": "alice",
        "role": "user",
        "iat": now,
        "exp": now + timedelta(minutes=5),
        "iss": "https://people.example",
        "aud": "kalimtak",
    }
    return {name: value for name, value in (good | changes).items() if value is not None}


def signed(kid: str = "new", secret: str = NEW, **changes: Any) -> str:
    return jwt.encode(claims(**changes), secret, algorithm="HS256", headers={"kid": kid})


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def ask(router: Router, token: str | None, **body: Any) -> httpx.Response:
    headers = {} if token is None else bearer(token)
    content = {"text": "Write an email"} | body
    return await router.client.post("/api/generate", json=content, headers=headers)


async def test_a_token_of_any_known_secret_gets_in(router: Router) -> None:
    assert (await ask(router, signed())).status_code == 200
    assert (await ask(router, signed("old", OLD))).status_code == 200


async def test_a_providers_token_gets_in(router: Router, provider: rsa.RSAPrivateKey) -> None:
    token = jwt.encode(claims(), provider, algorithm="RS256", headers={"kid": "provider"})
    assert (await ask(router, token)).status_code == 200


async def test_a_provider_that_is_away_makes_no_good_token_bad(
    router: Router, provider: rsa.RSAPrivateKey, settings: AuthSettings
) -> None:
    assert settings.jwks_file is not None
    settings.jwks_file.unlink()
    token = jwt.encode(claims(), provider, algorithm="RS256", headers={"kid": "provider"})
    refused = await ask(router, token)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")


async def test_without_a_credential_there_is_a_401_that_says_how(router: Router) -> None:
    response = await ask(router, None)
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert response.headers["content-type"] == "application/problem+json"


async def test_health_needs_no_credential(router: Router) -> None:
    assert (await router.client.get("/healthz")).status_code == 200


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: signed(exp=utc_now() - timedelta(minutes=1)), id="expired"),
        pytest.param(lambda: signed(exp=None), id="endless"),
        pytest.param(lambda: signed(nbf=utc_now() + timedelta(minutes=5)), id="not yet good"),
        pytest.param(lambda: signed(iat=utc_now() + timedelta(minutes=5)), id="made in the future"),
        pytest.param(lambda: signed(aud="another"), id="another audience"),
        pytest.param(lambda: signed(aud=None), id="no audience"),
        pytest.param(lambda: signed(iss="https://evil.example"), id="another issuer"),
        pytest.param(lambda: signed(sub=None), id="nobody"),
        pytest.param(lambda: signed(sub=""), id="empty subject"),
        pytest.param(lambda: signed(sub="x" * 257), id="long subject"),
        pytest.param(lambda: signed(role="root"), id="unknown role"),
        pytest.param(lambda: signed(role=["admin"]), id="list of roles"),
        pytest.param(lambda: signed(secret=OLD), id="secret of another key"),
        pytest.param(lambda: signed("gone"), id="unknown key"),
        pytest.param(lambda: signed("leaked"), id="secret among public keys"),
        pytest.param(lambda: signed("../../etc/passwd"), id="path as key id"),
        pytest.param(lambda: signed("new") + "x", id="altered signature"),
        pytest.param(lambda: "a.b.c", id="no token"),
        pytest.param(lambda: "klm_unknown_key", id="unknown API key"),
        pytest.param(lambda: "klm__", id="empty API key"),
    ],
)
async def test_a_bad_token_stays_out(router: Router, make: Callable[[], str]) -> None:
    token = make()
    response = await ask(router, token)
    assert response.status_code == 401
    assert token not in response.text


async def test_an_unsigned_token_stays_out(router: Router) -> None:
    for kid in ("new", "provider", None):
        headers = {} if kid is None else {"kid": kid}
        token = jwt.encode(claims(role="admin"), None, algorithm="none", headers=headers)
        assert (await ask(router, token)).status_code == 401


async def test_a_public_key_is_no_secret(router: Router, provider: rsa.RSAPrivateKey) -> None:
    pem = provider.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    # PyJWT will not sign so; an attacker's tool does.
    head = _segment({"alg": "HS256", "typ": "JWT", "kid": "provider"})
    now = int(utc_now().timestamp())
    body = _segment(claims(role="admin", iat=now, exp=now + 300))
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(
        f"{head}.{body}".encode(), pem
    )
    forged = f"{head}.{body}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"
    assert (await ask(router, forged)).status_code == 401


async def test_a_key_of_another_kind_stays_out(router: Router) -> None:
    stranger = ec.generate_private_key(ec.SECP256R1())
    token = jwt.encode(claims(), stranger, algorithm="ES256", headers={"kid": "provider"})
    assert (await ask(router, token)).status_code == 401


async def test_two_credentials_are_one_too_many(router: Router) -> None:
    response = await router.client.get(
        "/api/history/alice",
        headers=[("Authorization", f"Bearer {signed()}"), ("Authorization", "Bearer x")],
    )
    assert response.status_code == 401


async def test_a_users_answers_are_the_users(router: Router) -> None:
    answer = await ask(router, signed())
    mine = await router.client.get("/api/history/alice", headers=bearer(signed()))
    assert [row["interaction_id"] for row in mine.json()["interactions"]] == [
        answer.json()["interaction_id"]
    ]


async def test_nobody_acts_or_reads_as_somebody_else(router: Router) -> None:
    assert (await ask(router, signed(), user_id="bob")).status_code == 403
    chat = {"model": "kalimtak", "messages": [{"role": "user", "content": "x"}], "user": "bob"}
    refused = await router.client.post("/v1/chat/completions", json=chat, headers=bearer(signed()))
    assert (refused.status_code, refused.json()["error"]["param"]) == (403, "user")
    read = await router.client.get("/api/history/bob", headers=bearer(signed()))
    assert read.status_code == 403
    assert (await ask(router, signed(role="admin"), user_id="bob")).status_code == 200


async def test_nobody_rates_somebody_elses_answer(router: Router) -> None:
    theirs = (await ask(router, signed(sub="bob"))).json()["interaction_id"]
    body = {"interaction_id": theirs, "score": 1}
    statuses = [
        (await router.client.post("/api/feedback", json=body, headers=bearer(token))).status_code
        for token in (signed(), signed(sub="bob"), signed(role="reviewer"))
    ]
    assert statuses == [404, 200, 200]


def make_key(installation: Installation, **facts: Any) -> str:
    with installation.database.write() as session:
        made = keys.create(session, installation.act(), **({"name": "app", "role": "user"} | facts))
    return made.text


async def test_a_key_without_a_user_speaks_for_all(
    router: Router, installation: Installation
) -> None:
    text = make_key(installation)
    assert (await ask(router, text, user_id="bob")).status_code == 200
    by_header = await router.client.post(
        "/api/generate", json={"text": "Hello there"}, headers={"X-API-Key": text}
    )
    assert by_header.status_code == 200


async def test_a_key_of_one_user_speaks_for_that_one(
    router: Router, installation: Installation
) -> None:
    text = make_key(installation, subject="alice")
    assert (await ask(router, text)).status_code == 200
    assert (await ask(router, text, user_id="bob")).status_code == 403


async def test_a_key_that_has_ended_stays_out(router: Router, installation: Installation) -> None:
    expired = make_key(installation, lifetime=timedelta(seconds=-1))
    revoked = make_key(installation)
    prefix = keys.prefix_of(revoked)
    assert prefix is not None
    with installation.database.write() as session:
        keys.revoke(session, installation.act(), prefix)
    guessed = make_key(installation)[:-1] + "!"
    for text in (expired, revoked, guessed):
        assert (await ask(router, text)).status_code == 401


async def test_the_use_of_a_key_is_noted(router: Router, installation: Installation) -> None:
    text = make_key(installation)
    await ask(router, text)
    await router.service.authenticator.finish()
    with installation.database.read() as session:
        assert [row.last_used_at is not None for row in keys.list_keys(session)] == [True]


def _segment(content: dict[str, Any]) -> str:
    raw = json.dumps(content).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


async def test_guessing_is_slowed_down(installation: Installation, settings: AuthSettings) -> None:
    limits = LimitSettings(failed="3/minute")
    strict = installation.settings.model_copy(update={"auth": settings, "limits": limits})
    async with running_router(strict) as router:
        statuses = [(await ask(router, f"klm_guess_{number}")).status_code for number in range(5)]
        assert statuses == [401, 401, 401, 429, 429]
        assert (await ask(router, signed())).status_code == 200


@pytest.mark.parametrize("subject", ["nul\0", "half a pair \ud800"])
async def test_a_subject_that_cannot_be_stored_stays_out(router: Router, subject: str) -> None:
    now = int(utc_now().timestamp())
    head = _segment({"alg": "HS256", "kid": "new"})
    body = _segment(claims(sub=subject, iat=now, exp=now + 60))
    algorithm = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    signature = algorithm.sign(f"{head}.{body}".encode(), NEW.encode())
    token = f"{head}.{body}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"
    assert (await ask(router, token)).status_code == 401


def test_a_provider_without_an_audience_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="audience must be set"):
        AuthSettings(jwks_file=tmp_path / "jwks.json")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Host": "evil.example:8000"},
        {"Host": "127.0.0.1.evil.example"},
    ],
)
async def test_without_authentication_other_sites_stay_out(
    installation: Installation, headers: dict[str, str]
) -> None:
    async with running_router(installation.settings) as router:
        response = await router.client.post("/api/admin/rollback", content="{}", headers=headers)
        assert response.status_code == 403
        for own in ({"Origin": "http://localhost:8000"}, {"Host": "[::1]:8000"}, {}):
            asked = await router.client.post(
                "/api/generate", json={"text": "Write an email"}, headers=own
            )
            assert asked.status_code == 200
