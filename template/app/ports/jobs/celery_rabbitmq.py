"""Celery with RabbitMQ as its broker."""

from collections.abc import Sequence
from typing import Any

from kombu.entity import Exchange
from kombu.entity import Queue as Told

from app.kit.settings import load
from app.ports.jobs.celery import ANSWER_SECONDS, CeleryEngine
from app.ports.jobs.tasks import Queue
from app.ports.rabbitmq.module import RabbitMQSettings, tls

QUORUM = {"x-queue-type": "quorum"}
MOST_DEAD_LETTERS = 10_000


class CeleryRabbitMQEngine(CeleryEngine):
    """Keeps messages in quorum queues, which are durable, and waits until RabbitMQ has confirmed each of them.

    What is no job, or was brought to workers in vain twenty times, goes to a queue of dead letters, for people to read.
    """

    VARIABLE = "RABBITMQ_URL"

    @staticmethod
    def find_url() -> str | None:
        """Return where RabbitMQ is."""
        return load(RabbitMQSettings).whole_url

    def options(self) -> dict[str, Any]:
        """Have messages confirmed, and connections named."""
        return {
            "client_properties": {"connection_name": self.prefix},
            "confirm_publish": True,
            "write_timeout": ANSWER_SECONDS,
        }

    def tls(self) -> dict[str, Any] | bool:
        """Verify who answers."""
        return tls(self.url or "")

    def declared(self, queue: Queue) -> Told:
        """Return the quorum queue that stands for one of ours."""
        arguments = {
            **QUORUM,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": f"{self.prefix}.dead",
            "x-delivery-limit": 20,
        }
        name = f"{self.prefix}.{queue}"
        return Told(name, Exchange(""), routing_key=name, queue_arguments=arguments)

    def others(self) -> Sequence[Told]:
        """Return the queue of dead letters. When it is full, the oldest go."""
        return [Told(f"{self.prefix}.dead", queue_arguments={**QUORUM, "x-max-length": MOST_DEAD_LETTERS})]
