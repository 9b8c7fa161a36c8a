"""A store in Redis, which all processes share. What it holds may go when its memory is short."""

from fastapi import FastAPI
from redis.asyncio import Redis


class RedisStore:
    """Keeps values in Redis."""

    name = "Redis"

    def __init__(self, client: Redis, prefix: str) -> None:
        self.client, self.prefix = client, prefix

    async def get(self, *keys: str) -> list[bytes | None]:
        """Return the values of keys, in one round trip."""
        found: list[bytes | None] = await self.client.mget([self._key(key) for key in keys])
        return found

    async def set(self, key: str, value: bytes, seconds: float) -> None:
        """Keep a value."""
        await self.client.set(self._key(key), value, px=_milliseconds(seconds))

    async def add(self, key: str, value: bytes, seconds: float) -> bool:
        """Keep a value unless there is one."""
        return bool(await self.client.set(self._key(key), value, px=_milliseconds(seconds), nx=True))

    async def take(self, key: str) -> bytes | None:
        """Return a value and forget it."""
        found: bytes | None = await self.client.getdel(self._key(key))
        return found

    def _key(self, key: str) -> str:
        return f"{self.prefix}:{key}"


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def redis_store(app: FastAPI) -> RedisStore | None:
    """Return a store where REDIS_URL names a Redis."""
    client = app.state.redis
    return None if client is None else RedisStore(client, f"cache:{app.title}")
