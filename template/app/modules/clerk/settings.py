"""Settings of the webhooks of Clerk."""

from pydantic import Field, SecretStr

from app.kit.settings import ModuleSettings, load
from app.kit.signing import SigningSecret


class ClerkWebhookSettings(ModuleSettings):
    """Webhooks of Clerk."""

    clerk_webhook_secret: SigningSecret | None = Field(
        None, description="The signing secret of the endpoint there, whsec_... Empty: no event is taken."
    )


def signing_secret() -> SecretStr | None:
    """Read the secret when a message comes."""
    return load(ClerkWebhookSettings).clerk_webhook_secret
