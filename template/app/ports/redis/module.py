"""Redis, as a part of the service: one client, and the shared store of the rate limits."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from fastapi import FastAPI
from limits import RateLimitItem
from limits.aio.storage import RedisStorage
from pydantic import Field, field_validator
from redis.asyncio import ConnectionPool, Redis

from app.kit.limits import Counter, RateLimiter, Verdict
from app.kit.logging import get_logger
from app.kit.module import HealthCheck, Module
from app.kit.resilience import Guard, GuardedCallFailed
from app.kit.settings import ModuleSettings, SecretURL, load

TIMEOUT_SECONDS = 0.5
log = get_logger(__name__)


class RedisSettings(ModuleSettings):
    """Redis."""

    redis_url: SecretURL | None = Field(
        None, description="Where Redis is, such as redis://localhost:6379/0. Empty: limits are counted in memory."
    )

    @field_validator("redis_url")
    @classmethod
    def can_be_used(cls, value: SecretURL | None) -> SecretURL | None:
        """Refuse what the client cannot read, or reads in another way than it was meant."""
        if value is None:
            return None
        url = value.get_secret_value()
        if not url.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("starts with redis://, rediss:// or unix://")
        try:
            if not url.startswith("unix://"):
                int(urlsplit(url).path.strip("/") or 0)  # The client would take a name for database 0.
            ConnectionPool.from_url(url).make_connection()  # type: ignore[no-untyped-call]
        except Exception:
            raise ValueError("is not a Redis URL; one looks like redis://user:password@localhost:6379/0") from None
        return value


def redis_counter(client: Redis, prefix: str) -> Counter:
    """Count where all processes count."""
    storage = RedisStorage(
        "async+redis://",
        implementation="redispy",
        connection_pool=client.connection_pool,  # type: ignore[arg-type]
        key_prefix=prefix,
    )

    async def count(item: RateLimitItem, key: str) -> Verdict:
        used = await storage.incr(key, item.get_expiry())
        return Verdict(item.amount, used, await storage.get_expiry(key))

    return count


def counter_with_fallback(shared: Counter, alone: Counter) -> Counter:
    """Count in Redis, and in memory with a warning while it is away: a request is never refused for that."""
    guard = Guard("redis", timeout=TIMEOUT_SECONDS, attempts=1)

    async def count(item: RateLimitItem, key: str) -> Verdict:
        try:
            return await guard.call(shared, item, key)
        except GuardedCallFailed as failure:
            if failure.news:
                log.warning("redis is away; rate limits count in memory", reason=str(failure))
            return await alone(item, key)

    return count


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the client, and let the rate limits count in Redis while it is there."""
    url = load(RedisSettings).redis_url
    if url is None:
        app.state.redis = None
        yield
        return
    client = Redis.from_url(
        url.get_secret_value(), socket_connect_timeout=TIMEOUT_SECONDS, socket_timeout=TIMEOUT_SECONDS
    )
    app.state.redis = client
    limiter: RateLimiter = app.state.limiter
    alone = limiter.count
    limiter.count = counter_with_fallback(redis_counter(client, f"limits:{app.title}"), alone)
    try:
        yield
    finally:
        limiter.count = alone
        await client.aclose()


async def check(app: FastAPI) -> str | None:
    """Ping Redis, when there is a URL for it."""
    if app.state.redis is None:
        return "not used: REDIS_URL is empty"
    await app.state.redis.ping()
    return None


redis = Module(
    name="redis",
    settings=(RedisSettings,),
    lifespan=lifespan,
    health_checks=(
        HealthCheck(
            "redis",
            check,
            advice="See that Redis runs and what REDIS_URL says is right. Until then limits count in memory.",
            critical=False,
        ),
    ),
)
