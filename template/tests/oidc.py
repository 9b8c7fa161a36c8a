"""A provider of OpenID Connect, for tests."""

from typing import Any, ClassVar

from app.ports.identity.oidc import OidcSettings, OidcVerifier
from tests.issuer import Issuer

AUDIENCE = "service"
DISCOVERY = "/.well-known/openid-configuration"


class OidcProvider(Issuer):
    """It says in a document where its keys are."""

    PRODUCTION: ClassVar = {"OIDC_ISSUER": "https://identity.example.com", "OIDC_AUDIENCE": AUDIENCE}
    KEYS: ClassVar = "/keys"
    PREFIX: ClassVar = "oidc"

    def documents(self) -> dict[str, Any]:
        return {DISCOVERY: {"issuer": self.url, "jwks_uri": f"{self.url}{self.KEYS}"}, **super().documents()}

    def claims(self) -> dict[str, Any]:
        return {"aud": AUDIENCE}

    def verifier(self, **settings: Any) -> OidcVerifier:
        return OidcVerifier(OidcSettings(oidc_issuer=self.url, oidc_audience=AUDIENCE, **settings))

    @property
    def environment(self) -> dict[str, str]:
        return {"OIDC_ISSUER": self.url, "OIDC_AUDIENCE": AUDIENCE, "OIDC_ROLES_CLAIM": "roles"}
