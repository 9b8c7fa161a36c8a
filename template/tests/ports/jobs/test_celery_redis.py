"""Celery with Redis as its broker."""

import pytest

from app.kit.settings import forget
from app.ports.jobs.celery import CeleryEngine
from app.ports.jobs.celery_redis import CeleryRedisEngine
from tests.ports.jobs.celery import CeleryContract


class TestCeleryWithRedis(CeleryContract):
    name, variable, port = "celery_redis", "REDIS_URL", 6379
    # Redis keeps none.
    kept = 0

    async def dead_letters(self, engine: CeleryEngine) -> int:
        return 0


def test_a_socket_has_another_scheme_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "unix:///run/redis.sock?db=2")
    forget()
    assert CeleryRedisEngine.find_url() == "redis+socket:///run/redis.sock?virtual_host=2"
    forget()
