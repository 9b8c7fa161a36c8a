"""Supabase Auth: a project signs access tokens with keys that it publishes, or as of old with a shared secret."""

import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from jwt import PyJWK
from pydantic import Field, SecretStr, model_validator

from app.kit.module import Module
from app.kit.settings import MINIMUM_SECRET_LENGTH, CoreSettings, ModuleSettings, load
from app.ports.identity.bearer import Forbidden, Unauthorized
from app.ports.identity.jwks import KeySet
from app.ports.identity.provider import (
    ProviderError,
    ProviderVerifier,
    Roles,
    claim,
    fetch_key_set,
    guard_address,
    guard_claim,
    key_check,
    verifying_with,
)
from app.ports.identity.tokens import Keys

LEGACY = "HS256"
# The roles in the database that a project's API keys have. They name nobody, and the second may do everything there.
API_KEYS = {"anon", "service_role"}
# A part of the secrets that Supabase's own files come with for a project on one's own machine.
EXAMPLE_SECRET = "super-secret-jwt-token"  # noqa: S105


class SupabaseSettings(ModuleSettings):
    """Sign-in with Supabase."""

    supabase_url: str | None = Field(
        None,
        max_length=200,
        description="The project, such as https://abc.supabase.co. Empty: nobody can sign in.",
    )
    supabase_jwt_secret: SecretStr | None = Field(
        None, description="The legacy secret, while the project signs with it. Empty: only published keys are good."
    )
    supabase_audience: str = Field("authenticated", min_length=1, description="What tokens of users hold in aud.")
    supabase_leeway_seconds: float = Field(30, ge=0, le=300, description="How far the project's clock may be off.")
    supabase_minimum_aal: Literal["aal1", "aal2"] = Field(
        "aal1", description="aal2 lets only those in who have shown a second factor."
    )
    supabase_anonymous_users: bool = Field(False, description="Whether users who signed in anonymously are let in.")
    supabase_confirms_email: bool = Field(
        False, description="Whether the project confirms addresses before it signs tokens that hold them."
    )
    supabase_roles_claim: str | None = Field(
        None, description="The claim with the role, such as app_metadata.role. Empty: roles are kept in the database."
    )
    supabase_admin_role: str = Field("admin", min_length=1, description="Who has this one in that claim is an admin.")
    supabase_readonly_role: str = Field("readonly", min_length=1, description="Who has this one may only read.")

    @model_validator(mode="after")
    def guard(self) -> "SupabaseSettings":
        """Refuse what would let strangers in, and in production what would let nobody in."""
        guard_claim("SUPABASE_ROLES_CLAIM", self.supabase_roles_claim, "user_metadata")
        if (self.supabase_roles_claim, self.supabase_admin_role) == ("role", "authenticated"):
            raise ValueError("SUPABASE_ADMIN_ROLE: every user is authenticated, and would be an admin.")
        secret = self.supabase_jwt_secret
        if secret is not None and len(secret.get_secret_value().strip()) < MINIMUM_SECRET_LENGTH:
            raise ValueError(
                f"SUPABASE_JWT_SECRET: has at least {MINIMUM_SECRET_LENGTH} characters, or tokens could be forged."
            )
        production = guard_address("SUPABASE_URL", self.supabase_url) and load(CoreSettings).production
        if production and secret is not None and EXAMPLE_SECRET in secret.get_secret_value():
            raise ValueError("SUPABASE_JWT_SECRET: is an example of Supabase's, with which anybody makes tokens.")
        return self

    @property
    def issuer(self) -> str | None:
        """How tokens spell the project in iss."""
        return f"{self.supabase_url.rstrip('/')}/auth/v1" if self.supabase_url else None


class ProjectKeys:
    """The keys of a project: which one verifies a token follows from the algorithm alone.

    So the secret verifies nothing that is signed with a pair of keys, and a public key is never taken for the secret.
    """

    def __init__(self, published: KeySet, secret: str | None) -> None:
        self.published = published
        encoded = urlsafe_b64encode(secret.encode()).rstrip(b"=").decode() if secret else ""
        self.secret = PyJWK({"kty": "oct", "k": encoded}, LEGACY) if secret else None

    async def find(self, kid: str | None, algorithm: str) -> PyJWK | None:
        """Find a key. There is one secret, whatever it is called."""
        return self.secret if algorithm == LEGACY else await self.published.find(kid, algorithm)


class SupabaseVerifier(ProviderVerifier):
    """Verifies the access tokens of one project."""

    is_subject = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch

    def __init__(self, settings: SupabaseSettings) -> None:
        self.settings = settings
        self.secret = settings.supabase_jwt_secret.get_secret_value() if settings.supabase_jwt_secret else None
        super().__init__(
            issuer=settings.issuer,
            roles=Roles(settings.supabase_roles_claim, settings.supabase_admin_role, settings.supabase_readonly_role),
            audience=settings.supabase_audience,
            algorithms={"ES256", "RS256", *([LEGACY] if self.secret else [])},
            types={"jwt"},
            leeway=settings.supabase_leeway_seconds,
            # A project that signs with the secret alone publishes an empty set.
            keys_required=self.secret is None,
        )

    def all_keys(self) -> Keys:
        """Add the secret to the keys that are published."""
        return ProjectKeys(self.keys, self.secret)

    def examine(self, claims: Mapping[str, Any]) -> None:
        """Refuse what is not a user's own token, and users who are not let in."""
        if not isinstance(claims.get("role"), str) or claims["role"] in API_KEYS:
            raise Unauthorized("This is a key of the project, and not the token of a user.")
        if claims.get("client_id") is not None:
            raise Unauthorized("The token was given to another application, which acts for the user.")
        if claims.get("is_anonymous") is True and not self.settings.supabase_anonymous_users:
            raise Forbidden("Anonymous users are not let in: sign in with an account.", "anonymous_user")
        if self.settings.supabase_minimum_aal == "aal2" and claims.get("aal") != "aal2":
            raise Unauthorized("The token was given without a second factor.")

    def email_verified(self, claims: Mapping[str, Any]) -> bool | None:
        """Trust a project that is said to confirm addresses; `user_metadata.email_verified` is the user's word."""
        return self.settings.supabase_confirms_email or None

    def name_of(self, claims: Mapping[str, Any]) -> object:
        """Find the name that users have given themselves."""
        return claim(claims, "user_metadata.full_name") or claim(claims, "user_metadata.name")

    async def fetch_keys(self) -> Sequence[Mapping[str, Any]]:
        """Ask the project for its keys. Raises ProviderError."""
        address = f"{self.issuer}/.well-known/jwks.json"
        keys = await fetch_key_set(address)
        if not keys and self.secret is None:
            raise ProviderError(
                f"{address} holds no keys: let the project sign with a pair of keys, or set SUPABASE_JWT_SECRET"
            )
        return keys


identity = Module(
    name="identity",
    settings=(SupabaseSettings,),
    lifespan=verifying_with(lambda: SupabaseVerifier(load(SupabaseSettings))),
    health_checks=(key_check("SUPABASE_URL"),),
)
