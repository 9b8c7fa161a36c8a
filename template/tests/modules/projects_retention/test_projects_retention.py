from datetime import timedelta

from fastapi import FastAPI
from sqlmodel import select

from app.kit import clock
from app.modules.projects.models import Project
from app.modules.retention.tasks import clean_up
from app.modules.users.models import User
from app.ports.db.database import Database
from app.ports.jobs.tasks import run_here


async def test_only_what_was_deleted_long_ago_goes(app: FastAPI, database: Database) -> None:
    now = clock.now()
    async with database.session() as session:
        owner = User(subject="owner")
        session.add(owner)
        await session.flush()
        for name, days in (("live", None), ("deleted", 29), ("gone", 31)):
            deleted_at = None if days is None else now - timedelta(days=days)
            session.add(Project(owner_id=owner.id, name=name, deleted_at=deleted_at))
    assert (await run_here(app, clean_up()))["deleted projects"] == 1
    async with database.session() as session:
        assert set(await session.exec(select(Project.name))) == {"live", "deleted"}
