"""Celery with RabbitMQ as its broker."""

import asyncio
import os
from collections.abc import Iterator
from datetime import timedelta

import pytest

from app.kit.settings import forget
from app.ports.jobs import brokered
from app.ports.jobs.celery import CeleryEngine
from app.ports.jobs.celery_rabbitmq import CeleryRabbitMQEngine
from app.ports.jobs.tasks import Queue
from tests.ports.jobs.celery import CeleryContract
from tests.ports.jobs.contract import Make


class TestCeleryWithRabbitMQ(CeleryContract):
    name, variable, port = "celery_rabbitmq", "RABBITMQ_URL", 5672
    # Of six messages, one is taken for a job that is long over.
    kept = 5

    @pytest.fixture
    def broker(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
        url = os.environ.get("TEST_RABBITMQ_URL")
        if not url:
            pytest.skip("TEST_RABBITMQ_URL names no RabbitMQ server")
        monkeypatch.setenv("RABBITMQ_URL", url)
        forget()
        yield url
        monkeypatch.undo()
        forget()

    @pytest.fixture
    def make(self, broker: str, monkeypatch: pytest.MonkeyPatch) -> Make:
        monkeypatch.setattr(brokered, "OVERDUE", timedelta(seconds=0.2))
        return CeleryRabbitMQEngine

    async def dead_letters(self, engine: CeleryEngine) -> int:
        def ask() -> int:
            with engine.celery(*Queue).connection_for_write() as connection:
                (dead,) = engine.others()
                return int(dead(connection.default_channel).queue_declare()[1])

        return await asyncio.to_thread(ask)
