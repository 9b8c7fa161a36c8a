"""Settings of the webhooks of Clerk."""

from pydantic import Field

from app.kit.settings import ModuleSettings
from app.modules.webhooks.service import SigningSecret


class ClerkWebhookSettings(ModuleSettings):
    """Webhooks of Clerk."""

    clerk_webhook_secret: SigningSecret | None = Field(
        None, description="The signing secret of the endpoint there, whsec_... Empty: no event is taken."
    )
