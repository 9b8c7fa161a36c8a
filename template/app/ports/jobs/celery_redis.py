"""Celery with Redis as its broker."""

from typing import Any

from kombu.entity import Exchange
from kombu.entity import Queue as Told

from app.kit.settings import load
from app.ports.jobs.celery import ANSWER_SECONDS, CONNECT_SECONDS, CeleryEngine
from app.ports.jobs.tasks import Queue
from app.ports.redis.module import RedisSettings


class CeleryRedisEngine(CeleryEngine):
    """Keeps messages in lists of Redis. Those of a lost worker are told again by the others, as are forgotten ones."""

    VARIABLE = "REDIS_URL"

    @staticmethod
    def find_url() -> str | None:
        """Return where Redis is; kombu has a scheme of its own for sockets."""
        url = load(RedisSettings).redis_url
        if url is None:
            return None
        path, _, query = url.get_secret_value().partition("?")
        if not path.startswith("unix://"):
            return url.get_secret_value()
        return f"redis+socket://{path.removeprefix('unix://')}?{query.replace('db=', 'virtual_host=')}"

    def options(self) -> dict[str, Any]:
        """Keep everything below a prefix, for Redis has one place for all."""
        return {
            "global_keyprefix": f"{self.prefix}.",
            "socket_connect_timeout": CONNECT_SECONDS,
            "socket_timeout": ANSWER_SECONDS,
            "socket_keepalive": True,
            # Longer than any message is held.
            "visibility_timeout": 3600,
        }

    def declared(self, queue: Queue) -> Told:
        """Return the list of Redis that stands for one of our queues."""
        return Told(queue.value, Exchange(""), routing_key=queue.value)
