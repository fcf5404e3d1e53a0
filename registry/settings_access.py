"""Settings: who may call the endpoint, and how often."""

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from limits import RateLimitItem, parse_many
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    SecretStr,
    field_validator,
    model_validator,
)

from registry.settings_types import Part

MIN_SECRET_BYTES = 32
MIN_SECRET_CHARACTERS = 10
"""Different characters in a secret: fewer are no random text."""

NO_LIMIT = "none"
LIMIT_STORAGES = ("redis", "rediss", "redis+unix")


def _rate(value: Any) -> Any:
    if value is None or value == NO_LIMIT:
        return None
    if not isinstance(value, str) or len(limits := _parsed(value)) != 1 or limits[0].amount == 0:
        raise ValueError(f"must be like 60/minute or 500 per 2 hours, or {NO_LIMIT} for no limit")
    return value


def _parsed(value: str) -> list[RateLimitItem]:
    try:
        return parse_many(value)
    except ValueError:
        return []


def _limit_storage(value: str | None) -> str | None:
    if value is not None and value.partition("://")[0] not in LIMIT_STORAGES:
        raise ValueError(f"must begin with {', '.join(f'{name}://' for name in LIMIT_STORAGES)}")
    return value


Rate = Annotated[
    str | None,
    BeforeValidator(_rate),
    PlainSerializer(lambda value: value or NO_LIMIT, return_type=str, when_used="json"),
]
"""A rate limit as the `limits` library writes it; None is no limit."""


def _is_private(url: str) -> bool:
    """Whether nobody on the way can change what is read there."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (
        parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1")
    )


class AuthSettings(Part):
    """Who may call the endpoint."""

    enabled: bool = False
    """Off: whoever reaches the endpoint may do everything, so it must be on loopback."""
    secrets: dict[str, SecretStr] = Field(default_factory=dict)
    """Secrets of HS256 tokens by key id (`kid`): `KALIMTAK_AUTH__SECRETS__2026=…`. Tokens of all
    of them are taken, which is how a secret is replaced. None: one made from the key in `home`."""
    signing_key: str | None = None
    """Key id that `kalimtak token` signs with; unset, the only one."""
    jwks_url: str | None = None
    """Public keys of an identity provider (RS256, ES256, …)."""
    jwks_file: Path | None = None
    issuer: str | None = None
    """Where set, the `iss` that a token must have."""
    audience: str | None = None
    """The `aud` that a token must have; needed with an identity provider."""
    role_claim: str = "role"
    """Claim that holds user, reviewer or admin; a token without it is a user's."""

    @field_validator("secrets")
    @classmethod
    def _secrets_are_strong(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, secret in value.items():
            text = secret.get_secret_value()
            if len(text.encode()) < MIN_SECRET_BYTES or len(set(text)) < MIN_SECRET_CHARACTERS:
                raise ValueError(
                    f"the secret '{name}' is weak: at least {MIN_SECRET_BYTES} random bytes are "
                    "needed (openssl rand -hex 32)"
                )
        return value

    @model_validator(mode="after")
    def _signing_key_exists(self) -> "AuthSettings":
        if self.signing_key is not None and self.signing_key not in self.secrets:
            raise ValueError(f"signing_key '{self.signing_key}' is not among the secrets")
        if self.jwks_url is not None and self.jwks_file is not None:
            raise ValueError("give jwks_url or jwks_file, not both")
        if self.jwks_url is not None and not _is_private(self.jwks_url):
            raise ValueError(
                f"jwks_url '{self.jwks_url}' must be https://…: who changes keys on their way "
                "signs for everybody"
            )
        if self.audience is None and (self.jwks_url or self.jwks_file):
            raise ValueError(
                "audience must be set beside jwks_url or jwks_file: the provider signs for other "
                "applications too"
            )
        return self


class LimitSettings(Part):
    """How many requests each caller may make, such as `60/minute`, `500 per 2 hours` or `none`."""

    user: Rate = "60/minute"
    """For each person."""
    reviewer: Rate = "300/minute"
    """For each reviewer."""
    service: Rate = "3000/minute"
    """For each API key that speaks for many people."""
    admin: Rate = None
    """For each admin; also for everybody where authentication is off, which it may be on
    loopback alone."""
    failed: Rate = "60/minute"
    """Bad credentials from each address."""
    storage_url: Annotated[str | None, AfterValidator(_limit_storage)] = None
    """redis://…, rediss://… or redis+unix://…: where requests are counted if routers run on
    several machines; unset, a file that those of one machine share."""
