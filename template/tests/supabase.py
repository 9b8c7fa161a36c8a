"""A project of Supabase, for tests."""

from typing import Any, ClassVar
from uuid import NAMESPACE_URL, uuid4, uuid5

from app.ports.identity.supabase import SupabaseSettings, SupabaseVerifier
from tests.issuer import Issuer


class SupabaseProvider(Issuer):
    """It publishes its keys beside the rest of its Auth API."""

    PRODUCTION: ClassVar = {"SUPABASE_URL": "https://project.supabase.co"}
    VERIFIES: ClassVar = False
    KEYS: ClassVar = "/auth/v1/.well-known/jwks.json"
    PREFIX: ClassVar = "supabase"

    def person(self, name: str) -> str:
        return str(uuid5(NAMESPACE_URL, name))

    def claims(self) -> dict[str, Any]:
        return {
            "iss": f"{self.url}/auth/v1",
            "aud": "authenticated",
            "role": "authenticated",
            "aal": "aal1",
            "session_id": str(uuid4()),
            "is_anonymous": False,
            "app_metadata": {"provider": "email", "providers": ["email"]},
        }

    def token(self, *, name: str = "", **more: Any) -> str:
        said = {"user_metadata": {"full_name": name}} if name else {}
        return super().token(**(said | more))

    def verifier(self, **settings: Any) -> SupabaseVerifier:
        return SupabaseVerifier(SupabaseSettings(supabase_url=self.url, **settings))

    @property
    def environment(self) -> dict[str, str]:
        return {"SUPABASE_URL": self.url, "SUPABASE_ROLES_CLAIM": "roles"}
