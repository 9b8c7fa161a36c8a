from typing import Any

from httpx2 import AsyncClient

from app.kit import clock
from app.modules.files.models import File, FileState
from app.modules.users.models import User
from app.ports.db.database import Database
from tests.modules.metrics.conftest import METRICS, Value


async def test_files_are_counted(scraper: AsyncClient, database: Database, value: Value) -> None:
    async with database.session() as session:
        owner = User(subject="metrics")
        session.add(owner)
        await session.flush()
        rows = [
            (FileState.LIVE, 3_000_000_000, None),
            (FileState.LIVE, 5, None),
            (FileState.LIVE, 7, clock.now()),
            (FileState.PENDING, 11, None),
        ]
        for state, size, deleted_at in rows:
            values: dict[str, Any] = {"name": "secret.png", "content_type": "image/png", "upload_until": clock.now()}
            session.add(File(owner_id=owner.id, state=state, size=size, deleted_at=deleted_at, **values))
    text = (await scraper.get(METRICS)).text
    assert [value("files", state=state) for state in ("live", "pending")] == [2, 1]
    assert [value("files_bytes", state=state) for state in ("live", "pending")] == [3_000_000_005, 11]
    assert "secret.png" not in text
