"""Settings of the webhooks of Supabase."""

from pydantic import Field, SecretStr

from app.kit.settings import ModuleSettings, load
from app.kit.signing import SigningSecret


class SupabaseWebhookSettings(ModuleSettings):
    """Webhooks of Supabase."""

    supabase_webhook_secret: SigningSecret | None = Field(
        None, description="What the trigger in the project signs with, whsec_... Empty: no event is taken."
    )


def signing_secret() -> SecretStr | None:
    """Read the secret when a message comes."""
    return load(SupabaseWebhookSettings).supabase_webhook_secret
