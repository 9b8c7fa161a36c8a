from httpx2 import AsyncClient

from app.modules.contact.models import ContactMessage
from app.ports.db.database import Database
from tests.modules.metrics.conftest import METRICS, Value


async def test_messages_are_counted(scraper: AsyncClient, database: Database, value: Value) -> None:
    await scraper.get(METRICS)
    assert (value("contact_messages"), value("contact_newest_message_timestamp_seconds")) == (0, 0)
    async with database.session() as session:
        rows = [ContactMessage(stamp=stamp, message="Hello", email="ada@example.com") for stamp in "ab"]
        session.add_all(rows)
    text = (await scraper.get(METRICS)).text
    assert value("contact_messages") == 2
    assert value("contact_newest_message_timestamp_seconds") == max(row.created_at for row in rows).timestamp()
    assert "ada@" not in text
