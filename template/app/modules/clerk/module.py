"""Webhooks of Clerk, as a part of the service."""

from app.kit.module import Module, Tier
from app.modules.clerk.endpoints import router
from app.modules.clerk.settings import ClerkWebhookSettings

clerk = Module(name="clerk", routers={Tier.PUBLIC: [router]}, settings=[ClerkWebhookSettings])
