"""Celery with RabbitMQ as its broker."""

import asyncio

from app.ports.jobs.celery import CeleryEngine
from app.ports.jobs.tasks import Queue
from tests.ports.jobs.celery import CeleryContract


class TestCeleryWithRabbitMQ(CeleryContract):
    name, variable, port = "celery_rabbitmq", "RABBITMQ_URL", 5672
    # Of six messages, one is taken for a job that is long over.
    kept = 5

    async def dead_letters(self, engine: CeleryEngine) -> int:
        def ask() -> int:
            with engine.celery(*Queue).connection_for_write() as connection:
                (dead,) = engine.others()
                return int(dead(connection.default_channel).queue_declare()[1])

        return await asyncio.to_thread(ask)
