"""Queries for receipts."""

from datetime import datetime

from sqlalchemy import delete
from sqlmodel import col

from app.modules.webhooks.models import WebhookReceipt
from app.ports.db.records import Repository


class ReceiptRepository(Repository[WebhookReceipt]):
    """Adds receipts, and forgets old ones."""

    table = WebhookReceipt

    async def forget(self, source: str, before: datetime) -> None:
        """Remove the receipts of a source that are older than a time."""
        old = (col(WebhookReceipt.source) == source) & (col(WebhookReceipt.created_at) < before)
        await self.session.exec(delete(WebhookReceipt).where(old))
