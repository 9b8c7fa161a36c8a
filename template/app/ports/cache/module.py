"""The cache, as a part of the service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from pydantic import Field

from app.kit.module import Module
from app.kit.settings import ModuleSettings, load
from app.ports.cache.adapters import STORES
from app.ports.cache.cache import Cache
from app.ports.cache.memory import MemoryStore


class CacheSettings(ModuleSettings):
    """The cache."""

    cache_memory_bytes: int = Field(
        33_554_432, ge=65_536, description="What each process keeps in memory, where no other store is there."
    )
    cache_value_bytes: int = Field(
        1_048_576, ge=1024, description="The largest value that is kept; larger ones are made each time."
    )


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the cache on the best store that is there."""
    settings = load(CacheSettings)
    shared = next((store for store in (find(app) for find in STORES) if store is not None), None)
    app.state.cache = Cache(shared or MemoryStore(settings.cache_memory_bytes), settings.cache_value_bytes)
    yield


cache = Module(name="cache", settings=[CacheSettings], lifespan=lifespan)
