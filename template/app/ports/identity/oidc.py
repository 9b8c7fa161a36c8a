"""Any provider of OpenID Connect: its discovery document names its keys, and they verify its access tokens."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator
from pydantic_settings import NoDecode

from app.kit.module import Module
from app.kit.settings import ModuleSettings, load
from app.ports.identity.jwks import ALGORITHMS
from app.ports.identity.provider import (
    ProviderError,
    ProviderVerifier,
    Roles,
    fetch_json,
    fetch_key_set,
    guard_address,
    is_address,
    key_check,
    verifying_with,
)
from app.ports.identity.tokens import TYPES


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
        if guard_address("OIDC_ISSUER", self.oidc_issuer) and not self.oidc_audience:
            raise ValueError("OIDC_AUDIENCE: set it, or tokens that were made for other services would be good here.")
        return self


class OidcVerifier(ProviderVerifier):
    """Verifies the access tokens of one provider."""

    def __init__(self, settings: OidcSettings) -> None:
        super().__init__(
            issuer=settings.oidc_issuer,
            roles=Roles(settings.oidc_roles_claim, settings.oidc_admin_role, settings.oidc_readonly_role),
            audience=settings.oidc_audience or "",
            algorithms=set(settings.oidc_algorithms) & set(ALGORITHMS),
            # Some providers do not say what a token is, or say no more than that it is one.
            types={None, "jwt", *TYPES},
            leeway=settings.oidc_leeway_seconds,
        )

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
        return await fetch_key_set(address)


identity = Module(
    name="identity",
    settings=(OidcSettings,),
    lifespan=verifying_with(lambda: OidcVerifier(load(OidcSettings))),
    health_checks=(key_check("OIDC_ISSUER"),),
)
