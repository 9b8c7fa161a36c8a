"""Exports: what each module has of a user, in one JSON document."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter

from app.kit import clock
from app.kit.module import Module
from app.kit.settings import load
from app.modules.privacy import contents
from app.modules.privacy.settings import PrivacySettings
from app.modules.retention.rules import lets_go
from app.modules.users.models import User
from app.modules.users.schemas import UserRead
from app.ports.jobs.tasks import GiveUp, Queue, Running, task

_document: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])


@task(queue=Queue.HEAVY, attempts=3, timeout=timedelta(minutes=10))
async def export(job: Running, user_id: UUID) -> None:
    """Write the export of a user, which takes the place of the one before."""
    modules: Sequence[Module] = job.app.state.modules
    settings = load(PrivacySettings)
    async with job.database.session() as session:
        user = await session.get(User, user_id)
        if user is None:
            return
        document: dict[str, Any] = {"exported_at": clock.now(), "user": {"subject": user.subject}}
        document["user"] |= UserRead.model_validate(user).model_dump()
        for module in modules:
            if module.export:
                document[module.name] = await module.export(session, user_id)
    content = _document.dump_json(document, indent=2)
    if len(content) > settings.privacy_export_most_bytes:
        raise GiveUp("This is more than an export may hold: ask who runs the service.")
    expires_at = clock.now() + timedelta(hours=settings.privacy_export_hours)
    await contents.save(job, content, user_id=user_id, expires_at=expires_at)


@lets_go("exports")
async def forget(job: Running, now: datetime) -> int:
    """Remove the exports that nobody can fetch any more."""
    return await contents.forget(job, now)
