"""Whoever scrapes, and what has been measured so far."""

from collections.abc import AsyncIterator, Callable

import pytest
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient

from app.ports.db.database import Database
from tests.configure import configure

__all__ = ["configure"]
METRICS = "/api/v1/public/metrics"
Value = Callable[..., float]


@pytest.fixture(autouse=True)
def read_at_once(configure: Callable[..., None]) -> None:
    configure(metrics_seconds="0")


@pytest.fixture
async def scraper(app: FastAPI, database: Database) -> AsyncIterator[AsyncClient]:
    """A client that nobody has signed in."""
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as scraper:
        yield scraper


@pytest.fixture
def value(app: FastAPI, database: Database) -> Value:
    """Return a number of the registry, as it was when somebody last asked for the metrics."""

    def find(name: str, **labels: str) -> float:
        return app.state.metrics.registry.get_sample_value(name, labels) or 0.0

    return find
