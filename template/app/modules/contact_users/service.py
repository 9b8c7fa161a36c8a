"""Messages of the contact form belong to the user who has shown that the address is theirs; admins get counts."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from fastapi import FastAPI
from sqlmodel.ext.asyncio.session import AsyncSession

from app.modules.contact.repository import ContactRepository
from app.modules.reports.figures import Figure, Period
from app.modules.users.models import User

EXPORTED = {"id", "created_at", "name", "email", "subject", "message"}


async def _verified_address(session: AsyncSession, user_id: UUID) -> str | None:
    """Return the address of a user, unless it may be anybody's: it would open what others have written."""
    user = await session.get(User, user_id)
    return user.email if user is not None and user.email_verified else None


async def export(session: AsyncSession, user_id: UUID) -> list[dict[str, Any]]:
    """Return the messages that give the verified address of a user."""
    email = await _verified_address(session, user_id)
    rows = await ContactRepository(session).giving(email) if email else []
    return [row.model_dump(include=EXPORTED) | {"fields": json.loads(row.more)} for row in rows]


async def erase(session: AsyncSession, user_id: UUID) -> None:
    """Remove the messages that give the verified address of a user who is going."""
    if email := await _verified_address(session, user_id):
        await ContactRepository(session).erase(email)


async def count_messages(session: AsyncSession, period: Period) -> Sequence[Figure]:
    """Count the messages of a period, for the daily report."""
    return [Figure("Contact messages", await ContactRepository(session).came(period.since, period.until))]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Have messages counted."""
    app.state.figures.append(count_messages)
    yield
