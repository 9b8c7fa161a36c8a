"""The table of webhooks that have come."""

from sqlalchemy import UniqueConstraint
from sqlmodel import Field

from app.ports.db.records import Record


class WebhookReceipt(Record, table=True):
    """A message that somebody has sent, so that it is taken once."""

    __tablename__ = "webhook_receipts"
    __table_args__ = (UniqueConstraint("source", "message_id"),)

    source: str = Field(max_length=32)
    message_id: str = Field(max_length=255)
