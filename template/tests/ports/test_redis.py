import os
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient
from redis.exceptions import RedisError
from structlog.testing import capture_logs

from app.kit.limits import LimitSettings, RateLimiter, RateLimitMiddleware
from app.kit.settings import SettingsError, forget, load
from app.ports.redis import module


@pytest.fixture
def redis_url() -> str:
    url = os.environ.get("TEST_REDIS_URL")
    if not url:
        pytest.skip("TEST_REDIS_URL names no Redis server")
    return url


async def served(url: str, monkeypatch: pytest.MonkeyPatch, title: str) -> AsyncIterator[AsyncClient]:
    """An application whose limits count where REDIS_URL says."""
    monkeypatch.setenv("REDIS_URL", url)
    forget()
    app = FastAPI(title=title)
    app.state.limiter = RateLimiter(LimitSettings(rate_limit_enabled=True, rate_limit_default="3/hour"))
    app.add_middleware(RateLimitMiddleware, limiter=app.state.limiter)
    app.add_api_route("/api/ping", lambda: None)
    async with module.lifespan(app), AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        yield client
    forget()


async def test_all_processes_count_together(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    title = uuid4().hex
    seen = []
    for _ in range(2):
        async for client in served(redis_url, monkeypatch, title):
            seen += [(await client.get("/api/ping")).status_code for _ in range(2)]
    assert seen == [200, 200, 200, 429]


async def test_without_redis_limits_count_in_memory_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    with capture_logs() as logs:
        async for client in served("redis://127.0.0.1:1/0", monkeypatch, "away"):
            assert [(await client.get("/api/ping")).status_code for _ in range(4)] == [200, 200, 200, 429]
    assert "redis is away; rate limits count in memory" in [entry["event"] for entry in logs]


async def test_the_health_check_tells_whether_redis_answers(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for url, up in {redis_url: True, "redis://127.0.0.1:1/0": False}.items():
        monkeypatch.setenv("REDIS_URL", url)
        forget()
        app = FastAPI()
        app.state.limiter = RateLimiter(LimitSettings())
        async with module.lifespan(app):
            if up:
                await module.check(app)
            else:
                with pytest.raises(RedisError):
                    await module.check(app)
    forget()


@pytest.mark.parametrize(
    "url", ["http://h", "redis://h:port:x", "redis://h/abc", "redis://h/0?db=x", "redis://h/0?foo=1"]
)
def test_what_is_no_redis_url_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    forget()
    monkeypatch.setenv("REDIS_URL", url)
    with pytest.raises(SettingsError, match="REDIS_URL: "):
        load(module.RedisSettings)
    forget()
