"""Local accounts: the service signs its access tokens itself, and is the only one who verifies them.

So they are signed with a secret (HS256), which is derived from SECRET_KEY for this purpose alone. There is no pair of
keys to make, publish and rotate; a new SECRET_KEY ends all access tokens, and the next refresh brings good ones.
"""

import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from hmac import digest
from urllib.parse import urlsplit
from uuid import UUID

import jwt
from fastapi import FastAPI
from jwt import PyJWK
from pydantic import Field, field_validator, model_validator

from app.kit import clock
from app.kit.ids import new_id
from app.kit.module import Module
from app.kit.settings import DEVELOPMENT_SECRET, CoreSettings, ModuleSettings, SettingsError, load
from app.ports.identity.bearer import Unauthorized, VerifiedToken
from app.ports.identity.tokens import TokenDecoder, time_of

ALGORITHM = "HS256"
PURPOSE = b"access tokens of local accounts, 1"
REFRESH_PURPOSE = b"refresh tokens of local accounts, 1"
HERE = "http://localhost:8000"
# How somebody signed in: with a password, with several factors (RFC 8176).
PASSWORD, SEVERAL = "pwd", "mfa"


class LocalSettings(ModuleSettings):
    """Sign-in with accounts of this service."""

    public_url: str = Field(
        HERE, max_length=255, description="Where people open the application. Links in mails go there."
    )
    auth_access_token_seconds: int = Field(600, ge=30, le=3600, description="How long an access token is good.")

    @field_validator("public_url")
    @classmethod
    def is_address(cls, value: str) -> str:
        """Accept an address that a path can be added to."""
        with suppress(ValueError):
            parts = urlsplit(value)
            if (
                re.fullmatch(r"[\x21-\x7e]+", value)
                and not re.search(r"[?#|\\\"<>]", value)
                and parts.scheme in {"http", "https"}
                and parts.hostname
                and parts.username is None
                and parts.port != 0
            ):
                return value.rstrip("/")
        raise ValueError("is an address that starts with https:// or http:// and has no query")

    @model_validator(mode="after")
    def guard(self) -> "LocalSettings":
        """Refuse links in production that everybody on the way could read."""
        with suppress(SettingsError):  # What is wrong there is told there.
            if load(CoreSettings).production and not self.public_url.startswith("https://"):
                raise ValueError("PUBLIC_URL: production needs the https address that people open.")
        return self


def signing_key(secret: str) -> bytes:
    """Derive the key of access tokens. Where the secret is one that everybody knows, draw one instead."""
    if secret == DEVELOPMENT_SECRET:
        return secrets.token_bytes(32)
    return digest(secret.encode(), PURPOSE, "sha256")


class AccessTokens:
    """Signs access tokens and verifies them."""

    def __init__(self, key: bytes, settings: LocalSettings) -> None:
        self.lifetime = settings.auth_access_token_seconds
        self.issuer, self.audience = settings.public_url, f"{settings.public_url}/api"
        encoded = urlsafe_b64encode(key).rstrip(b"=").decode()
        self.refresh_key = digest(key, REFRESH_PURPOSE, "sha256")
        self.key = PyJWK({"kty": "oct", "k": encoded}, ALGORITHM)
        self.decoder = TokenDecoder(self, issuer=self.issuer, audience=self.audience, algorithms=[ALGORITHM])

    def issue(self, *, user_id: UUID, session_id: UUID, amr: Sequence[str] = (PASSWORD,)) -> str:
        """Sign a token for a user who has signed in; `amr` says how, with the names of RFC 8176."""
        now = int(clock.now().timestamp())
        claims = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": str(user_id),
            "sid": str(session_id),
            "jti": str(new_id()),
            "amr": list(amr),
            "iat": now,
            "exp": now + self.lifetime,
        }
        return jwt.encode(claims, self.key, ALGORITHM, {"typ": "at+jwt"})

    async def find(self, kid: str | None, algorithm: str) -> PyJWK | None:
        """Find the key: there is one, and it has no id."""
        return self.key if kid is None else None

    async def verify(self, token: str) -> VerifiedToken:
        """Return what a token says; `session_id` reads which session it belongs to. Raises Unauthorized."""
        claims = await self.decoder.decode(token)
        try:
            user_id, _ = UUID(claims["sub"]), UUID(claims["sid"])
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise Unauthorized("The token names nobody.") from error
        try:
            return VerifiedToken(
                subject=subject_of(user_id),
                email=None,
                email_verified=False,
                name=None,
                role=None,
                claims=claims,
                token_id=claims.get("jti"),
                issued_at=time_of(claims["iat"]) if "iat" in claims else None,
                expires_at=time_of(claims["exp"]),
            )
        except (ValueError, OverflowError, OSError) as error:
            raise Unauthorized("The token cannot be read.") from error


def subject_of(user_id: UUID) -> str:
    """Name the owner of a local account among all that providers vouch for."""
    return f"local|{user_id}"


def session_id(token: VerifiedToken) -> UUID:
    """Read which session a verified token belongs to."""
    return UUID(token.claims["sid"])


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Make this the verifier of the service."""
    settings = load(LocalSettings)
    app.state.verifier = AccessTokens(signing_key(load(CoreSettings).secret_key.get_secret_value()), settings)
    parts = urlsplit(settings.public_url)
    app.state.own_origin = f"{parts.scheme}://{parts.netloc}".lower()
    yield


identity = Module(name="identity", settings=(LocalSettings,), lifespan=lifespan)
