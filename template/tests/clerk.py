"""An instance of Clerk, for tests."""

from hashlib import sha256
from typing import Any, ClassVar

from app.ports.identity.clerk import ClerkSettings, ClerkVerifier
from tests.issuer import Issuer

AUDIENCE = "service"
PAGE = "https://app.example.com"


class ClerkProvider(Issuer):
    """Its session tokens are customized: they have an audience, as those of the other providers."""

    PRODUCTION: ClassVar = {"CLERK_ISSUER": "https://clerk.example.com", "CLERK_AUTHORIZED_PARTIES": PAGE}
    KEYS: ClassVar = "/.well-known/jwks.json"
    PREFIX: ClassVar = "clerk"

    def person(self, name: str) -> str:
        return f"user_{name if name.isalnum() else sha256(name.encode()).hexdigest()}"

    def claims(self) -> dict[str, Any]:
        return {"aud": AUDIENCE, "azp": PAGE, "sid": "sess_1", "sts": "active", "v": 2, "fva": [0, -1]}

    def verifier(self, **settings: Any) -> ClerkVerifier:
        given: dict[str, Any] = {
            "clerk_audience": AUDIENCE,
            "clerk_authorized_parties": [PAGE],
            "clerk_leeway_seconds": 30,
        }
        return ClerkVerifier(ClerkSettings(clerk_issuer=self.url, **(given | settings)))

    @property
    def environment(self) -> dict[str, str]:
        return {
            "CLERK_ISSUER": self.url,
            "CLERK_AUTHORIZED_PARTIES": PAGE,
            "CLERK_AUDIENCE": AUDIENCE,
            "CLERK_ROLES_CLAIM": "roles",
        }
