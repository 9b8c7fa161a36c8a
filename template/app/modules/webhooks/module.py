"""Webhooks, as a part of the service: what others tell, taken once."""

from app.kit.module import Module
from app.modules.webhooks.models import WebhookReceipt
from app.modules.webhooks.service import lifespan

webhooks = Module(name="webhooks", tables=[WebhookReceipt], lifespan=lifespan)
