"""Storage, as a part of the service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection

from app.kit.module import HealthCheck, Module, Tier
from app.kit.settings import load
from app.ports.storage.endpoints import router
from app.ports.storage.local import PREFIX, LocalStorageSettings
from app.ports.storage.settings import StorageSettings, open_storage
from app.ports.storage.storage import Storage


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the storage. What comes to its links is bounded by what they were signed for."""
    app.state.storage = open_storage(load(StorageSettings))
    app.state.self_bounded = f"{PREFIX}/"
    try:
        yield
    finally:
        await app.state.storage.close()


async def check(app: FastAPI) -> str | None:
    """Find out whether files could be stored."""
    found: str | None = await app.state.storage.check()
    return found


async def _storage(connection: HTTPConnection) -> Storage:
    opened: Storage = connection.app.state.storage
    return opened


Objects = Annotated[Storage, Depends(_storage)]

storage = Module(
    name="storage",
    routers={Tier.PUBLIC: [router]},
    settings=[StorageSettings, LocalStorageSettings],
    lifespan=lifespan,
    health_checks=[HealthCheck("storage", check, advice="Check STORAGE_PROVIDER and its settings.", critical=False)],
)
