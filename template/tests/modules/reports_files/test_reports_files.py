from datetime import timedelta
from typing import Any

from fastapi import FastAPI

from app.kit import clock
from app.modules.files.models import File, FileState
from app.modules.reports.figures import Figure, Period
from app.modules.reports_files.service import count_files
from app.modules.users.models import User
from app.ports.db.database import Database


async def test_files_that_are_there_are_counted(app: FastAPI, database: Database) -> None:
    now = clock.now()
    day = timedelta(days=1)
    assert count_files in app.state.figures
    live, pending = FileState.LIVE, FileState.PENDING
    async with database.session() as session:
        owner = User(subject="owner")
        session.add(owner)
        await session.flush()
        for state, age, deleted_at in (
            (live, day / 2, None),
            (live, day / 3, None),
            (pending, day / 2, None),
            (live, day / 2, now),
            (live, 2 * day, None),
        ):
            times: dict[str, Any] = {"created_at": now - age, "upload_until": now, "deleted_at": deleted_at}
            file: dict[str, Any] = {"name": "a.txt", "content_type": "text/plain", "size": 3_000_000_000}
            session.add(File(owner_id=owner.id, state=state, **file, **times))
        await session.flush()
        assert await count_files(session, Period(now - day, now)) == [Figure("Files stored", 2, "6,000,000,000 bytes")]
        assert await count_files(session, Period(now, now + day)) == [Figure("Files stored", 0, "0 bytes")]
