"""Modules that have rows of the database counted."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI
from prometheus_client.metrics_core import Metric

from app.kit.module import Module
from app.modules.metrics.service import Metrics
from app.ports.db.database import Database


def reading_module(name: str, read: Callable[[Database], Awaitable[Sequence[Metric]]]) -> Module:
    """Make the module that has the rows of another one read."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        metrics: Metrics = app.state.metrics
        metrics.read(name, lambda: read(app.state.database))
        yield

    return Module(name=f"metrics_{name}", lifespan=lifespan)
