"""What is measured of the contact form, as a part of the service."""

from collections.abc import Sequence

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from sqlalchemy import func, select

from app.modules.contact.models import ContactMessage
from app.modules.metrics.rows import reading_module
from app.ports.db.database import Database

_messages = ContactMessage.__table__  # type: ignore[attr-defined]
_KEPT = select(
    func.count().label("messages"), func.max(_messages.c.created_at, type_=_messages.c.created_at.type).label("newest")
)


async def read_contact(database: Database) -> Sequence[Metric]:
    """Count the messages that are kept. Their mails and webhooks are jobs, and counted there."""
    (row,) = await database.fetch(_KEPT)
    kept = GaugeMetricFamily("contact_messages", "Messages that are kept, the same from every process.", row.messages)
    newest = row.newest.timestamp() if row.newest else 0
    came = GaugeMetricFamily("contact_newest_message_timestamp_seconds", "When the newest came, or 0.", newest)
    return [kept, came]


metrics_contact = reading_module("contact", read_contact)
