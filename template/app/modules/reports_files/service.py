"""What files add to the daily report."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI
from sqlmodel.ext.asyncio.session import AsyncSession

from app.modules.files.repository import FileRepository
from app.modules.reports.figures import Figure, Period


async def count_files(session: AsyncSession, period: Period) -> Sequence[Figure]:
    """Count the files that were stored and are still there, with their bytes."""
    count, size = await FileRepository(session).stored(period.since, period.until)
    return [Figure("Files stored", count, f"{size:,} bytes")]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Have files counted."""
    app.state.figures.append(count_files)
    yield
