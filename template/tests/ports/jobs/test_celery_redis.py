"""Celery with Redis as its broker."""

import os
from collections.abc import Iterator
from datetime import timedelta

import pytest

from app.kit.settings import forget
from app.ports.jobs import brokered
from app.ports.jobs.celery import CeleryEngine
from app.ports.jobs.celery_redis import CeleryRedisEngine
from tests.ports.jobs.celery import CeleryContract
from tests.ports.jobs.contract import Make


class TestCeleryWithRedis(CeleryContract):
    name, variable, port = "celery_redis", "REDIS_URL", 6379
    # Redis keeps none.
    kept = 0

    @pytest.fixture
    def broker(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
        url = os.environ.get("TEST_REDIS_URL")
        if not url:
            pytest.skip("TEST_REDIS_URL names no Redis server")
        monkeypatch.setenv("REDIS_URL", url)
        forget()
        yield url
        monkeypatch.undo()
        forget()

    @pytest.fixture
    def make(self, broker: str, monkeypatch: pytest.MonkeyPatch) -> Make:
        monkeypatch.setattr(brokered, "OVERDUE", timedelta(seconds=0.2))
        return CeleryRedisEngine

    async def dead_letters(self, engine: CeleryEngine) -> int:
        return 0


def test_a_socket_has_another_scheme_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "unix:///run/redis.sock?db=2")
    forget()
    assert CeleryRedisEngine.find_url() == "redis+socket:///run/redis.sock?virtual_host=2"
    forget()
