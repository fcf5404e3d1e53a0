"""JSON Web Tokens: checked with our own secrets (HS256) or an identity provider's public keys.

Which algorithms a key may be used with hangs on the key, never on the token's header, so that
nobody signs with a public key as if it were a secret (RFC 8725, section 3.1).
"""

import asyncio
import hashlib
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import httpx
import jwt
from jwt import PyJWK, PyJWKSet

from registry.clock import Clock, utc_now
from registry.crypto import Keyring
from registry.errors import SettingsError
from registry.settings_access import AuthSettings
from serving.errors import ServingError

HOME_KEY = "home"
"""Key id of tokens signed with the secret that is made from the key in `home`."""
SYMMETRIC = ("HS256",)
ASYMMETRIC = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")
LEEWAY_S = 10
MAX_TOKEN_CHARS = 8_192
JWKS_MAX_AGE_S = 600.0
JWKS_MIN_AGE_S = 30.0
"""A token of an unknown key makes us ask for the keys again, but not more often than this."""
JWKS_RETRY_S = 1.0
"""While no keys are known at all, they are asked for this often."""
JWKS_TIMEOUT_S = 5.0
GOOD_FOR_S = 30.0
"""A token whose signature was good is not computed through again before; its end is looked at."""
MAX_GOOD = 4_096
_UNREADABLE = (OSError, ValueError, AttributeError, httpx.HTTPError, jwt.PyJWTError)
"""What no answer raises, or one that is no key set."""

logger = logging.getLogger(__name__)


class TokenError(ServingError):
    """A token is not taken; the text is for its owner."""


class ProviderAwayError(ServingError):
    """Whether a token is good cannot be told now: its key is not here, and cannot be asked for."""


@dataclass(frozen=True)
class Signer:
    """Our own secrets, by key id."""

    secrets: Mapping[str, str]
    signing_key: str | None

    def sign(self, claims: Mapping[str, Any]) -> str:
        """A token with these claims. Raises `SettingsError` where the key to use is unclear."""
        if self.signing_key is None:
            raise SettingsError(
                f"auth.signing_key must name one of the secrets: {', '.join(self.secrets)}"
            )
        secret = self.secrets[self.signing_key]
        return jwt.encode(
            dict(claims), secret, algorithm="HS256", headers={"kid": self.signing_key}
        )


def make_signer(settings: AuthSettings, keyring: Keyring) -> Signer:
    """The secrets of the settings, else the one that the installation's key gives."""
    secrets = {name: secret.get_secret_value() for name, secret in settings.secrets.items()}
    if not secrets and settings.jwks_url is None and settings.jwks_file is None:
        secrets = {HOME_KEY: keyring.derive("tokens").hex()}
    only = next(iter(secrets)) if len(secrets) == 1 else None
    return Signer(secrets, settings.signing_key or only)


def make_token(
    signer: Signer,
    settings: AuthSettings,
    *,
    subject: str,
    role: str,
    now: datetime,
    lifetime: timedelta,
) -> str:
    """A token as `TokenChecker` takes it."""
    claims: dict[str, Any] = {
        "sub": subject,
        settings.role_claim: role,
        "iat": now,
        "exp": now + lifetime,
    }
    if settings.issuer is not None:
        claims["iss"] = settings.issuer
    if settings.audience is not None:
        claims["aud"] = settings.audience
    return signer.sign(claims)


class ProviderKeys:
    """The public keys of an identity provider, from a URL or a file, by key id."""

    def __init__(
        self, settings: AuthSettings, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._url = settings.jwks_url
        self._file = settings.jwks_file
        self._monotonic = monotonic
        self._keys: dict[str, PyJWK] = {}
        self._read_at: float | None = None
        self._is_away = False
        """Whether the last attempt to read them failed."""
        self._lock = asyncio.Lock()

    async def get(self, key_id: str) -> PyJWK | None:
        """The key of this id; the set is read again when it is old, or lacks it.

        Raises `ProviderAwayError`.
        """
        if self._url is None and self._file is None:
            return None
        # While one caller reads them again, the keys that are there do for the others.
        if self._is_due(key_id) and not (self._lock.locked() and key_id in self._keys):
            async with self._lock:
                if self._is_due(key_id):
                    await self._read()
        found = self._keys.get(key_id)
        if found is None and self._is_away:
            raise ProviderAwayError("the identity provider's keys cannot be read")
        return found

    def _is_due(self, key_id: str) -> bool:
        if self._read_at is None:
            return True
        age_s = self._monotonic() - self._read_at
        if self._is_away and not self._keys:
            return age_s >= JWKS_RETRY_S
        is_wanting = self._is_away or key_id not in self._keys
        return age_s >= (JWKS_MIN_AGE_S if is_wanting else JWKS_MAX_AGE_S)

    async def _read(self) -> None:
        """Where that fails, the keys that were good a while ago still are better than none."""
        try:
            found = PyJWKSet.from_dict(json.loads(await self._text())).keys
        except _UNREADABLE as error:
            logger.warning("the identity provider's keys cannot be read: %r", error)
            self._is_away = True
        else:
            self._is_away = False
            self._keys = {
                key.key_id: key
                for key in found
                # A secret among public keys would let its readers sign.
                if key.key_id is not None and key.key_type != "oct"
            }
        self._read_at = self._monotonic()

    async def _text(self) -> str:
        if self._file is not None:
            return await asyncio.to_thread(self._file.read_text, encoding="utf-8")
        assert self._url is not None
        async with httpx.AsyncClient(timeout=JWKS_TIMEOUT_S) as client:
            return (await client.get(self._url)).raise_for_status().text


class TokenChecker:
    """Tells a good token from a bad one."""

    def __init__(
        self,
        settings: AuthSettings,
        signer: Signer,
        keys: ProviderKeys,
        *,
        clock: Clock = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._signer = signer
        self._keys = keys
        self._clock = clock
        self._monotonic = monotonic
        self._good: OrderedDict[bytes, tuple[Mapping[str, Any], float]] = OrderedDict()
        """Claims by the token's digest, and when its signature was looked at."""

    async def claims(self, token: str) -> Mapping[str, Any]:
        """The claims of a good token. Raises `TokenError` or `ProviderAwayError`."""
        if len(token) > MAX_TOKEN_CHARS:
            raise TokenError(f"the token is longer than {MAX_TOKEN_CHARS} characters")
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        claims, checked_at = self._good.get(digest, ({}, 0.0))
        if not claims or self._monotonic() - checked_at > GOOD_FOR_S:
            claims = await self._check(token)
            self._good[digest] = claims, self._monotonic()
            self._good.move_to_end(digest)
            if len(self._good) > MAX_GOOD:
                self._good.popitem(last=False)
        elif int(claims["exp"]) <= self._clock().timestamp() - LEEWAY_S:
            raise TokenError("the token has expired")
        return claims

    async def _check(self, token: str) -> Mapping[str, Any]:
        try:
            key_id = jwt.get_unverified_header(token).get("kid", self._signer.signing_key)
            key, algorithms = await self._key(key_id)
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=list(algorithms),
                leeway=LEEWAY_S,
                issuer=self._settings.issuer,
                audience=self._settings.audience,
                # A token that names an audience is not taken where none is expected.
                # RSA keys below 2048 bits, which can be broken, are not taken either.
                options={"require": ["exp", "sub"], "enforce_minimum_key_length": True},
            )
        except jwt.ExpiredSignatureError as error:
            raise TokenError("the token has expired") from error
        except jwt.PyJWTError as error:
            raise TokenError("the token is not valid") from error
        return claims

    async def _key(self, key_id: object) -> tuple[str | PyJWK, tuple[str, ...]]:
        if isinstance(key_id, str):
            secret = self._signer.secrets.get(key_id)
            if secret is not None:
                return secret, SYMMETRIC
            public = await self._keys.get(key_id)
            if public is not None:
                return public, ASYMMETRIC
        raise TokenError("the token is signed with a key that is not known here")
