"""Clerk: an instance signs short session tokens, with keys that its Frontend API publishes."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator
from pydantic_settings import NoDecode

from app.kit.module import Module
from app.kit.settings import CoreSettings, ModuleSettings, load
from app.ports.identity.bearer import Unauthorized
from app.ports.identity.provider import (
    ProviderVerifier,
    Roles,
    fetch_key_set,
    guard_address,
    guard_claim,
    is_address,
    key_check,
    verifying_with,
)


class ClerkSettings(ModuleSettings):
    """Sign-in with Clerk."""

    clerk_issuer: str | None = Field(
        None,
        max_length=200,
        description="The Frontend API, such as https://clerk.example.com. Empty: nobody can sign in.",
    )
    clerk_authorized_parties: Annotated[list[str], NoDecode] = Field(
        [], description="Origins whose pages may get tokens, separated by commas; with CLERK_ISSUER it must be set."
    )
    clerk_native_apps: bool = Field(False, description="Let tokens in without azp too, as native applications have.")
    clerk_audience: str | None = Field(
        None, max_length=255, description="What tokens hold in aud. Empty: they have none, as Clerk's own."
    )
    clerk_leeway_seconds: float = Field(5, ge=0, le=300, description="How far Clerk's clock may be off.")
    clerk_roles_claim: str | None = Field(
        None, description="The claim with the role, such as metadata.role. Empty: roles are kept in the database."
    )
    clerk_admin_role: str = Field("admin", min_length=1, description="Who has this one in that claim is an admin.")
    clerk_readonly_role: str = Field("readonly", min_length=1, description="Who has this one may only read.")

    @field_validator("clerk_authorized_parties", mode="before")
    @classmethod
    def split(cls, value: str | list[str]) -> list[str]:
        """Accept the comma-separated form, and origins as browsers spell them."""
        origins = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        for origin in origins:
            if not is_address(origin, https=False) or origin.count("/") != 2 or origin != origin.lower():
                raise ValueError("list scheme://host[:port] in lower case, without a path")
        return origins

    @model_validator(mode="after")
    def guard(self) -> "ClerkSettings":
        """Refuse what would let strangers in, and in production what would let nobody in."""
        guard_claim("CLERK_ROLES_CLAIM", self.clerk_roles_claim, "unsafe_metadata")
        if re.match(r"(o|org_\w+)(\.|$)", self.clerk_roles_claim or ""):
            raise ValueError("CLERK_ROLES_CLAIM: whoever makes an organization is its admin, and would be one here.")
        given = guard_address("CLERK_ISSUER", self.clerk_issuer)
        if given and load(CoreSettings).production and re.search(r"\.accounts\.dev/*$", self.clerk_issuer or ""):
            raise ValueError("CLERK_ISSUER: is a development instance, where a known code verifies test addresses.")
        if given and not self.clerk_authorized_parties:
            raise ValueError(
                "CLERK_AUTHORIZED_PARTIES: list the origins of your pages, or tokens of other pages would be good."
            )
        return self


class ClerkVerifier(ProviderVerifier):
    """Verifies the session tokens of one instance."""

    # What M2M tokens are about has the prefix mch_, and is nobody who signs in.
    is_subject = re.compile(r"user_[A-Za-z0-9]{1,64}").fullmatch

    def __init__(self, settings: ClerkSettings) -> None:
        self.settings = settings
        super().__init__(
            # The Dashboard shows it without a slash at the end, and so do tokens.
            issuer=(settings.clerk_issuer or "").rstrip("/"),
            roles=Roles(settings.clerk_roles_claim, settings.clerk_admin_role, settings.clerk_readonly_role),
            audience=settings.clerk_audience,
            algorithms={"RS256"},
            # Access tokens for the clients of others say at+jwt.
            types={"jwt"},
            leeway=settings.clerk_leeway_seconds,
        )

    def examine(self, claims: Mapping[str, Any]) -> None:
        """Refuse tokens that pages of others got, and sessions that have something left to do."""
        party = claims.get("azp")
        if party is None and not self.settings.clerk_native_apps:
            raise Unauthorized("The token does not say which page it was made for.")
        if party is not None and party not in self.settings.clerk_authorized_parties:
            raise Unauthorized("The token was made for another page.")
        if self.settings.clerk_audience is None and not claims.get("sid"):
            raise Unauthorized("The token is not that of a session.")
        if claims.get("sts", "active") != "active":
            raise Unauthorized("The session has something left to do before it is good.")

    async def fetch_keys(self) -> Sequence[Mapping[str, Any]]:
        """Ask the Frontend API for the keys. Raises ProviderError."""
        return await fetch_key_set(f"{self.issuer}/.well-known/jwks.json")


identity = Module(
    name="identity",
    settings=(ClerkSettings,),
    lifespan=verifying_with(lambda: ClerkVerifier(load(ClerkSettings))),
    health_checks=(key_check("CLERK_ISSUER"),),
)
