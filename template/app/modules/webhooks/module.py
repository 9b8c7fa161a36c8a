"""Webhooks, as a part of the service: what others tell, taken once."""

from app.kit.module import Module
from app.modules.webhooks.models import WebhookReceipt

webhooks = Module(name="webhooks", tables=[WebhookReceipt])
