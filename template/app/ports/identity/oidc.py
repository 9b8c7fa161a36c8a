"""Any provider of OpenID Connect: its discovery document names its keys, and they verify its access tokens."""

import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import FastAPI
from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator
from pydantic_settings import NoDecode

from app.kit.module import HealthCheck, Module
from app.kit.schemas import Line
from app.kit.settings import CoreSettings, ModuleSettings, SettingsError, load
from app.ports.identity.bearer import Role, Unauthorized, VerifiedToken
from app.ports.identity.jwks import ALGORITHMS, KeySet
from app.ports.identity.tokens import TYPES, TokenDecoder, time_of

FETCH_TIMEOUT_SECONDS = 5.0
MOST_BYTES = 512 * 1024
_is_subject = re.compile(r"[\x20-\x7e]{1,255}").fullmatch
_line: TypeAdapter[str] = TypeAdapter(Line)


class OidcSettings(ModuleSettings):
    """Sign-in with OpenID Connect."""

    oidc_issuer: str | None = Field(
        None, max_length=255, description="The provider, as its tokens spell it in iss. Empty: nobody can sign in."
    )
    oidc_audience: str | None = Field(
        None, max_length=255, description="What tokens for this service hold in aud; with OIDC_ISSUER it must be set."
    )
    oidc_algorithms: Annotated[list[str], NoDecode] = Field(
        ["RS256", "ES256"], description="How tokens may be signed, separated by commas."
    )
    oidc_leeway_seconds: float = Field(30, ge=0, le=300, description="How far the provider's clock may be off.")
    oidc_roles_claim: str | None = Field(
        None, description="The claim with roles, such as realm_access.roles. Empty: roles are kept in the database."
    )
    oidc_admin_role: str = Field("admin", min_length=1, description="Who has this one in that claim is an admin.")
    oidc_readonly_role: str = Field("readonly", min_length=1, description="Who has this one may only read.")

    @field_validator("oidc_algorithms", mode="before")
    @classmethod
    def split(cls, value: str | list[str]) -> list[str]:
        """Accept the comma-separated form, and no algorithm that works with a shared secret or none at all."""
        names = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        if not names or not set(names) <= set(ALGORITHMS):
            raise ValueError(f"list some of {', '.join(ALGORITHMS)}")
        return names

    @model_validator(mode="after")
    def guard(self) -> "OidcSettings":
        """Refuse what would let strangers in, and in production what would let nobody in."""
        try:
            production = load(CoreSettings).production
        except SettingsError:
            return self  # What is wrong there is told there.
        if self.oidc_issuer is None:
            if production:
                raise ValueError("OIDC_ISSUER: production needs the provider's https address.")
            return self
        if not self.oidc_audience:
            raise ValueError("OIDC_AUDIENCE: set it, or tokens that were made for other services would be good here.")
        if not is_address(self.oidc_issuer, https=production):
            schemes = "https://" if production else "https:// or http://"
            raise ValueError(f"OIDC_ISSUER: is an address that starts with {schemes} and has no query.")
        return self


def is_address(url: str, *, https: bool) -> bool:
    """Tell whether something is the address of a provider. Outside development only https will do."""
    if not re.fullmatch(r"[\x21-\x7e]+", url) or re.search(r"[?#|\\\"<>]", url):
        return False
    with suppress(ValueError):
        parts = urlsplit(url)
        schemes = {"https"} if https else {"https", "http"}
        return parts.scheme in schemes and bool(parts.hostname) and parts.username is None and parts.port != 0
    return False


class ProviderError(Exception):
    """The provider does not answer as it should; the message says in a sentence what is wrong."""


class OidcVerifier:
    """Verifies the access tokens of one provider."""

    def __init__(self, settings: OidcSettings) -> None:
        self.settings = settings
        self.issuer = settings.oidc_issuer or ""
        self.keys = KeySet(self.fetch_keys)
        self.decoder = TokenDecoder(
            self.keys,
            issuer=self.issuer,
            audience=settings.oidc_audience or "",
            algorithms=set(settings.oidc_algorithms) & set(ALGORITHMS),
            # Some providers do not say what a token is, or say no more than that it is one.
            types={None, "jwt", *TYPES},
            leeway=settings.oidc_leeway_seconds,
        )

    async def verify(self, token: str) -> VerifiedToken:
        """Return what a token says. Raises Unauthorized, or Unavailable when it cannot tell."""
        if not self.issuer:
            raise Unauthorized("Nobody can sign in yet: no provider of identity is set.")
        claims = await self.decoder.decode(token)
        if not _is_subject(claims["sub"]):
            raise Unauthorized("The token names nobody.")
        email = text_of(claims.get("email"), most=320)
        try:
            return VerifiedToken(
                # A subject is one person's at one issuer only (OpenID Connect Core 1.0, 2).
                subject=f"{self.issuer}|{claims['sub']}",
                email=email,
                email_verified=email is not None and claims.get("email_verified") is True,
                name=text_of(claims.get("name"), most=200),
                role=self.role_of(claims),
                claims=claims,
                token_id=claims.get("jti"),
                issued_at=time_of(claims["iat"]) if "iat" in claims else None,
                expires_at=time_of(claims["exp"]),
            )
        except (ValueError, OverflowError, OSError) as error:
            raise Unauthorized("The token cannot be read.") from error

    def role_of(self, claims: Mapping[str, Any]) -> Role | None:
        """Read the role from the claims; who has none that counts is a user."""
        if not self.settings.oidc_roles_claim:
            return None
        found = claim(claims, self.settings.oidc_roles_claim)
        # A text is one role: parts of it would be roles that nobody gave.
        roles = [found] if isinstance(found, str) else found if isinstance(found, list) else []
        if self.settings.oidc_admin_role in roles:
            return Role.ADMIN
        return Role.READONLY if self.settings.oidc_readonly_role in roles else Role.USER

    async def fetch_keys(self) -> Sequence[Mapping[str, Any]]:
        """Ask the provider for its keys. Raises ProviderError."""
        url = f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"
        document = await fetch_json(url)
        named = document.get("issuer")
        if named != self.issuer:
            raise ProviderError(f"{url} says that its issuer is {named!r}, and OIDC_ISSUER is {self.issuer!r}")
        address = document.get("jwks_uri")
        if not isinstance(address, str) or not is_address(address, https=self.issuer.startswith("https:")):
            raise ProviderError(f"{url} names no address of keys that can be trusted: {address!r}")
        keys = (await fetch_json(address)).get("keys")
        if not isinstance(keys, list):
            raise ProviderError(f"{address} holds no keys")
        return [key for key in keys if isinstance(key, dict)]


def claim(claims: Mapping[str, Any], name: str) -> object:
    """Find a claim by its name, or by its path: realm_access.roles."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def text_of(value: object, *, most: int) -> str | None:
    """Take a claim that can be stored and shown on one line."""
    try:
        text = _line.validate_python(value, strict=True)
    except ValidationError:
        return None
    return text if len(text) <= most else None


async def fetch_json(url: str) -> dict[str, Any]:
    """Fetch an object from an address, and follow it nowhere else. Raises ProviderError."""
    import httpx2

    try:
        async with (
            httpx2.AsyncClient(timeout=FETCH_TIMEOUT_SECONDS, headers={"Accept": "application/json"}) as client,
            client.stream("GET", url) as answer,
        ):
            if answer.status_code != 200:
                raise ProviderError(f"{url} answers with status {answer.status_code}")
            body = b""
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > MOST_BYTES:
                    raise ProviderError(f"{url} answers with more than {MOST_BYTES} bytes")
        found = json.loads(body)
    except httpx2.HTTPError as error:
        raise ProviderError(f"{url} cannot be reached: {type(error).__name__} {error}".rstrip()) from None
    except (ValueError, RecursionError):
        raise ProviderError(f"{url} does not answer with JSON") from None
    if not isinstance(found, dict):
        raise ProviderError(f"{url} does not answer with an object")
    return found


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Make this the verifier of the service. The provider is first asked when a token comes."""
    app.state.verifier = verifier = OidcVerifier(load(OidcSettings))
    try:
        yield
    finally:
        await verifier.keys.close()


async def check(app: FastAPI) -> str | None:
    """See that the provider answers with keys. Raises ProviderError."""
    verifier: OidcVerifier = app.state.verifier
    if not verifier.issuer:
        return "nobody can sign in yet: OIDC_ISSUER is empty"
    # Readiness is asked all the time; the provider is not.
    if verifier.keys.failure or not verifier.keys.fresh:
        await verifier.keys.refresh()
    if verifier.keys.failure:
        raise ProviderError(str(verifier.keys.failure))
    return None


identity = Module(
    name="identity",
    settings=(OidcSettings,),
    lifespan=lifespan,
    health_checks=(
        HealthCheck(
            "identity",
            check,
            advice="Check OIDC_ISSUER, and that the provider is up. Keys that are known go on working.",
            critical=False,
        ),
    ),
)
