"""RabbitMQ, as a part of the service: where it is, and whether it answers."""

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import quote, urlsplit

from fastapi import FastAPI
from kombu.connection import Connection
from pydantic import Field, SecretStr, field_validator

from app.kit.module import HealthCheck, Module
from app.kit.settings import ModuleSettings, SecretURL, load

TIMEOUT_SECONDS = 1.5


class RabbitMQSettings(ModuleSettings):
    """RabbitMQ."""

    rabbitmq_url: SecretURL | None = Field(
        None, description="Where RabbitMQ is, such as amqp://app@localhost:5672/. Empty: not used."
    )
    rabbitmq_password: SecretStr | None = Field(
        None,
        description="The password, where RABBITMQ_URL has a user and none.",
        json_schema_extra={"generated": True},
    )

    @field_validator("rabbitmq_url")
    @classmethod
    def can_be_used(cls, value: SecretURL | None) -> SecretURL | None:
        """Refuse what the client cannot read, or reads in another way than it was meant."""
        if value is None:
            return None
        url = value.get_secret_value()
        if not url.startswith(("amqp://", "amqps://")):
            raise ValueError("starts with amqp:// or amqps://")
        with suppress(ValueError):
            parts = urlsplit(url)
            # A virtual host is one name: a slash in it is written as %2F.
            if parts.hostname and parts.port != 0 and not parts.query + parts.fragment and "/" not in parts.path[1:]:
                return value
        raise ValueError("is not an AMQP URL; one looks like amqp://user:password@localhost:5672/")

    @property
    def whole_url(self) -> str | None:
        """The URL, with the password that may stand apart from it."""
        if self.rabbitmq_url is None:
            return None
        url = self.rabbitmq_url.get_secret_value()
        parts = urlsplit(url)
        if not parts.username or parts.password is not None or self.rabbitmq_password is None:
            return url
        password = quote(self.rabbitmq_password.get_secret_value(), safe="")
        host = parts.netloc.rpartition("@")[2]
        return parts._replace(netloc=f"{parts.username}:{password}@{host}").geturl()


def tls(url: str) -> dict[str, Any] | bool:
    """Return what makes a client verify the certificate of the server, and that it is the server's."""
    return {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": None} if url.startswith("amqps://") else False


class RabbitMQ:
    """A connection that is kept to ask whether RabbitMQ answers."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._connection: Connection | None = None
        self._turn = threading.Lock()

    async def ping(self) -> None:
        """Ask for an answer. Raises when there is none in time."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await asyncio.to_thread(self._ask)
        except BaseException:
            self.close()
            raise

    def _ask(self) -> None:
        with self._turn:
            if self._connection is None:
                self._connection = Connection(self.url, ssl=tls(self.url), connect_timeout=TIMEOUT_SECONDS)
            # By itself it would wait before it tries again.
            self._connection.ensure_connection(max_retries=1, interval_start=0, reraise_as_library_errors=False)
            self._connection.channel().close()

    def close(self) -> None:
        """Let go of the connection. A thread that waits for an answer ends."""
        connection, self._connection = self._connection, None
        if connection:
            connection.collect(socket_timeout=0.1)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Have something to ask, where there is a URL."""
    url = load(RabbitMQSettings).whole_url
    app.state.rabbitmq = RabbitMQ(url) if url else None
    yield
    if app.state.rabbitmq:
        app.state.rabbitmq.close()


async def check(app: FastAPI) -> str | None:
    """Ask RabbitMQ for an answer, when there is a URL for it."""
    if app.state.rabbitmq is None:
        return "not used: RABBITMQ_URL is empty"
    await app.state.rabbitmq.ping()
    return None


rabbitmq = Module(
    name="rabbitmq",
    settings=(RabbitMQSettings,),
    lifespan=lifespan,
    health_checks=(
        HealthCheck(
            "rabbitmq",
            check,
            advice="See that RabbitMQ runs and RABBITMQ_URL has the right address, user, password and virtual host. "
            "Until then jobs wait in the database.",
            critical=False,
        ),
    ),
)
