"""Providers elsewhere: what verifying their tokens has in common, whoever they are."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI
from pydantic import TypeAdapter, ValidationError

from app.kit.module import HealthCheck
from app.kit.schemas import Line
from app.kit.settings import CoreSettings, SettingsError, load
from app.ports.identity.bearer import Role, Unauthorized, VerifiedToken
from app.ports.identity.jwks import KeySet
from app.ports.identity.tokens import Keys, TokenDecoder, time_of

FETCH_TIMEOUT_SECONDS = 5.0
MOST_BYTES = 512 * 1024
_line: TypeAdapter[str] = TypeAdapter(Line)


class ProviderError(Exception):
    """The provider does not answer as it should; the message says in a sentence what is wrong."""


@dataclass(frozen=True, slots=True)
class Roles:
    """Where the roles of a caller stand among the claims, and which of them count."""

    claim: str | None
    admin: str
    readonly: str

    def of(self, claims: Mapping[str, Any]) -> Role | None:
        """Read the role from the claims; who has none that counts is a user. None: roles are kept here."""
        if not self.claim:
            return None
        found = claim(claims, self.claim)
        # A text is one role: parts of it would be roles that nobody gave.
        roles = [found] if isinstance(found, str) else found if isinstance(found, list) else []
        if self.admin in roles:
            return Role.ADMIN
        return Role.READONLY if self.readonly in roles else Role.USER

    def told(self, claims: Mapping[str, Any]) -> Role | None:
        """Read the role from what is only a part of the claims; None where they say nothing of it."""
        return self.of(claims) if self.claim and self.claim.split(".")[0] in claims else None


class ProviderVerifier:
    """Verifies the tokens of one provider. Subclasses know where its keys are, and what else its tokens have to say."""

    is_subject: Callable[[str], object] = re.compile(r"[\x20-\x7e]{1,255}").fullmatch

    def __init__(
        self,
        *,
        issuer: str | None,
        roles: Roles,
        audience: str | None,
        algorithms: Collection[str],
        types: Collection[str | None],
        leeway: float,
        keys_required: bool = True,
    ) -> None:
        self.issuer, self.roles = issuer or "", roles
        self.keys = KeySet(self.fetch_keys, required=keys_required)
        self.decoder = TokenDecoder(
            self.all_keys(),
            issuer=self.issuer,
            audience=audience,
            algorithms=algorithms,
            types=types,
            leeway=leeway,
        )

    async def verify(self, token: str) -> VerifiedToken:
        """Return what a token says. Raises Unauthorized, Forbidden, or Unavailable when it cannot tell."""
        if not self.issuer:
            raise Unauthorized("Nobody can sign in yet: no provider of identity is set.")
        claims = await self.decoder.decode(token)
        try:
            subject = self.subject_of(claims["sub"])
        except ValueError as error:
            raise Unauthorized("The token names nobody.") from error
        self.examine(claims)
        email = text_of(claims.get("email"), most=320)
        try:
            return VerifiedToken(
                subject=subject,
                email=email,
                email_verified=self.email_verified(claims) if email else False,
                name=text_of(self.name_of(claims), most=200),
                role=self.roles.of(claims),
                claims=claims,
                token_id=claims.get("jti"),
                issued_at=time_of(claims["iat"]) if "iat" in claims else None,
                expires_at=time_of(claims["exp"]),
            )
        except (ValueError, OverflowError, OSError) as error:
            raise Unauthorized("The token cannot be read.") from error

    def subject_of(self, id: str) -> str:
        """Name a person. An id is one person's at one issuer only (OpenID Connect Core 1.0, 2). Raises ValueError."""
        if not self.is_subject(id):
            raise ValueError("nobody has such an id")
        return f"{self.issuer}|{id}"

    def examine(self, claims: Mapping[str, Any]) -> None:
        """Look at what only this provider's tokens say. Raises Unauthorized or Forbidden."""

    def email_verified(self, claims: Mapping[str, Any]) -> bool | None:
        """Tell whether the address is known to be the caller's; None when the token does not say."""
        return claims.get("email_verified") is True

    def name_of(self, claims: Mapping[str, Any]) -> object:
        """Find the name."""
        return claims.get("name")

    def all_keys(self) -> Keys:
        """Say where keys are found."""
        return self.keys

    async def fetch_keys(self) -> Sequence[Mapping[str, Any]]:
        """Ask the provider for its keys. Raises ProviderError."""
        raise NotImplementedError


def guard_address(setting: str, url: str | None) -> bool:
    """Tell whether a provider is set. Raises ValueError for an address that will not do."""
    try:
        production = load(CoreSettings).production
    except SettingsError:
        return False  # What is wrong there is told there.
    if url is None:
        if production:
            raise ValueError(f"{setting}: production needs the provider's https address.")
        return False
    if not is_address(url, https=production):
        schemes = "https://" if production else "https:// or http://"
        raise ValueError(f"{setting}: is an address that starts with {schemes} and has no query.")
    return True


def guard_claim(setting: str, name: str | None, written_by_users: str) -> None:
    """Refuse to read roles from where users write. Raises ValueError."""
    if name and written_by_users in name.split("."):
        raise ValueError(f"{setting}: users write {written_by_users} themselves, and would make themselves admins.")


def is_address(url: str, *, https: bool) -> bool:
    """Tell whether something is the address of a provider. Outside development only https will do."""
    if not re.fullmatch(r"[\x21-\x7e]+", url) or re.search(r"[?#|\\\"<>]", url):
        return False
    with suppress(ValueError):
        parts = urlsplit(url)
        schemes = {"https"} if https else {"https", "http"}
        return parts.scheme in schemes and bool(parts.hostname) and parts.username is None and parts.port != 0
    return False


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
            # For all of it: httpx2's own starts anew with each byte that comes.
            asyncio.timeout(FETCH_TIMEOUT_SECONDS),
            httpx2.AsyncClient(timeout=None, headers={"Accept": "application/json"}) as client,
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
    except TimeoutError:
        raise ProviderError(f"{url} takes too long to answer") from None
    except (ValueError, RecursionError):
        raise ProviderError(f"{url} does not answer with JSON") from None
    if not isinstance(found, dict):
        raise ProviderError(f"{url} does not answer with an object")
    return found


async def fetch_key_set(address: str) -> Sequence[Mapping[str, Any]]:
    """Fetch a set of keys (RFC 7517). Raises ProviderError."""
    keys = (await fetch_json(address)).get("keys")
    if not isinstance(keys, list):
        raise ProviderError(f"{address} holds no keys")
    return [key for key in keys if isinstance(key, dict)]


def verifying_with(make: Callable[[], ProviderVerifier]) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Make the lifespan in which a verifier is the service's. The provider is first asked when a token comes."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.verifier = verifier = make()
        try:
            yield
        finally:
            await verifier.keys.close()

    return lifespan


def key_check(setting: str) -> HealthCheck:
    """Make the check that the provider answers with keys; it is told by a ProviderError when it does not."""

    async def check(app: FastAPI) -> str | None:
        verifier: ProviderVerifier = app.state.verifier
        if not verifier.issuer:
            return f"nobody can sign in yet: {setting} is empty"
        # Readiness is asked all the time; the provider is not.
        if verifier.keys.failure or not verifier.keys.fresh:
            await verifier.keys.refresh()
        if verifier.keys.failure:
            raise ProviderError(str(verifier.keys.failure))
        return None

    advice = f"Check {setting}, and that the provider is up. Keys that are known go on working."
    return HealthCheck("identity", check, advice=advice, critical=False)
