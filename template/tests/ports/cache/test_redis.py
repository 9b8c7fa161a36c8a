import os
from collections.abc import AsyncIterator, Callable
from uuid import uuid4

import pytest
from fastapi import FastAPI
from redis.asyncio import Redis

from app.kit.limits import LimitSettings, RateLimiter
from app.kit.settings import forget
from app.ports.cache.cache import Cache
from app.ports.cache.module import lifespan
from app.ports.cache.redis import RedisStore
from app.ports.redis import module as redis
from tests.ports.cache.contract import CacheContract


@pytest.fixture
async def client() -> AsyncIterator[Redis]:
    url = os.environ.get("TEST_REDIS_URL")
    if not url:
        pytest.skip("TEST_REDIS_URL names no Redis server")
    client = Redis.from_url(url)
    yield client
    await client.aclose()


class TestRedis(CacheContract):
    @pytest.fixture
    def make(self, client: Redis) -> Callable[[], RedisStore]:
        prefix = f"test:{uuid4().hex}"
        return lambda: RedisStore(client, prefix)


async def test_where_redis_is_named_all_processes_share_a_cache(client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", os.environ["TEST_REDIS_URL"])
    forget()
    app = FastAPI(title=uuid4().hex)
    app.state.limiter = RateLimiter(LimitSettings())
    async with redis.lifespan(app), lifespan(app):
        cache: Cache = app.state.cache
        assert cache.store.name == "Redis"
        await cache.store.set("a", b"1", 1.5)
        assert 0 < await client.pttl(f"cache:{app.title}:a") <= 1500
    forget()
