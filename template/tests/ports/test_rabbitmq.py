import asyncio
import os
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI

from app.kit.settings import SettingsError, forget, load
from app.ports.rabbitmq import module


@pytest.fixture
def rabbitmq_url() -> str:
    url = os.environ.get("TEST_RABBITMQ_URL")
    if not url:
        pytest.skip("TEST_RABBITMQ_URL names no RabbitMQ server")
    return url


@asynccontextmanager
async def service(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FastAPI]:
    monkeypatch.setenv("RABBITMQ_URL", url)
    forget()
    app = FastAPI()
    async with module.lifespan(app):
        yield app
    forget()


async def test_the_health_check_tells_whether_rabbitmq_answers(
    rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service(rabbitmq_url, monkeypatch) as app:
        await asyncio.gather(*(module.check(app) for _ in range(4)))
        # A connection that was lost is replaced, at the latest by who asks next.
        app.state.rabbitmq._connection.connection.transport.sock.close()
        with pytest.raises(OSError, match=r"."):
            await module.check(app)
        await module.check(app)


async def test_nobody_waits_for_a_server_that_is_silent_or_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 0.3)

    clients: list[asyncio.StreamWriter] = []

    def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clients.append(writer)
        if not silent.is_serving():
            writer.transport.abort()  # It came in time, and is told of late.

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    threads = threading.active_count()
    for url in (f"amqp://127.0.0.1:{port}/", "amqp://127.0.0.1:1/"):
        async with service(url, monkeypatch) as app:
            for _ in range(3):
                with pytest.raises(OSError, match=r".|"):
                    await module.check(app)
    silent.close()
    for client in clients:
        client.transport.abort()
    # The loop closes what was let in last after some turns, and is closed itself when the test ends.
    for _ in range(20):
        await asyncio.sleep(0.005)
    assert threading.active_count() <= threads + 6


async def test_without_a_url_it_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with service("", monkeypatch) as app:
        assert await module.check(app) == "not used: RABBITMQ_URL is empty"


@pytest.mark.parametrize(
    "url", ["http://h/", "amqp:///", "amqp://h:port/", "amqp://h/a/b", "amqp://h/?heartbeat=5", "amqp://h:99999/"]
)
def test_what_is_no_url_of_rabbitmq_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    forget()
    monkeypatch.setenv("RABBITMQ_URL", url)
    with pytest.raises(SettingsError, match="RABBITMQ_URL: "):
        load(module.RabbitMQSettings)
    forget()


@pytest.mark.parametrize(
    ("url", "whole"),
    {
        "amqp://app@h:5672/": "amqp://app:p%40ss%2Fw%3Ard@h:5672/",
        "amqp://app:own@h/": "amqp://app:own@h/",
        "amqp://app:@h/": "amqp://app:@h/",
        "amqp://h/": "amqp://h/",
        "amqps://app@[::1]/a%2Fb": "amqps://app:p%40ss%2Fw%3Ard@[::1]/a%2Fb",
    }.items(),
)
def test_the_password_may_stand_apart(monkeypatch: pytest.MonkeyPatch, url: str, whole: str) -> None:
    monkeypatch.setenv("RABBITMQ_URL", url)
    monkeypatch.setenv("RABBITMQ_PASSWORD", "p@ss/w:rd")
    forget()
    assert load(module.RabbitMQSettings).whole_url == whole
    forget()


def test_certificates_are_verified_with_tls() -> None:
    assert module.tls("amqp://h/") is False
    verified = module.tls("amqps://h/")
    assert verified == {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": None}
