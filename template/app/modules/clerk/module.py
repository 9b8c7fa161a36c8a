"""Webhooks of Clerk, as a part of the service."""

from app.kit.module import Module, Tier
from app.modules.clerk.endpoints import router
from app.modules.clerk.settings import ClerkWebhookSettings, signing_secret
from app.modules.webhooks.service import secret_check

clerk = Module(
    name="clerk",
    routers={Tier.PUBLIC: [router]},
    settings=[ClerkWebhookSettings],
    health_checks=[secret_check("CLERK_WEBHOOK_SECRET", signing_secret)],
)
