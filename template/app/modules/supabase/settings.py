"""Settings of the webhooks of Supabase."""

from pydantic import Field

from app.kit.settings import ModuleSettings
from app.modules.webhooks.service import SigningSecret


class SupabaseWebhookSettings(ModuleSettings):
    """Webhooks of Supabase."""

    supabase_webhook_secret: SigningSecret | None = Field(
        None, description="What the trigger in the project signs with, whsec_... Empty: no event is taken."
    )
