import asyncio
from typing import Any

import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.types import Receive, Scope, Send
from websockets.exceptions import InvalidStatus

from app.modules.metrics.realtime import ConnectionCounts, RealtimeMetricsMiddleware
from tests.modules.realtime.conftest import Live, environment, kinds, live, own_database, serve, vouching

__all__ = ["environment", "kinds", "live", "own_database", "serve", "vouching"]


def value(live: Live, name: str, **labels: str) -> float:
    return live.app.state.metrics.registry.get_sample_value(name, labels) or 0.0


async def seen(live: Live, name: str, **labels: str) -> None:
    """Wait for the first of something."""
    async with asyncio.timeout(10):
        while value(live, name, **labels) != 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_connections_are_counted_while_they_are_there_and_as_they_end(live: Live) -> None:
    client = await live.enter("ada", "test:one")
    await live.app.state.metrics.write("")
    gauges = ("realtime_connections", "realtime_users", "realtime_rooms", "realtime_reaches_others")
    # Everybody is in a room of their own as well.
    assert [value(live, name) for name in gauges] == [1, 1, 2, 1]
    assert value(live, "realtime_handshakes_total", status="101") == 1
    await client.connection.close(4711)
    await seen(live, "realtime_closed_total", by="client", code="other")
    await live.gone()
    await live.app.state.metrics.write("")
    assert [value(live, name) for name in gauges] == [0, 0, 0, 1]


async def test_what_the_service_refuses_and_closes_is_counted(live: Live) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await live.connect(query="?token=no-ticket")
    status = refused.value.response.status_code
    assert value(live, "realtime_handshakes_total", status=str(status)) == 1
    client = await live.enter("ada")
    await client.connection.send(b"bytes")
    assert (await client.closed())[0] == 1003
    await seen(live, "realtime_closed_total", by="service", code="1003")
    # The protocol is broken below the application, which hears that the client has gone.
    broken = await live.enter("ada")
    await broken.connection.send("\ud800".encode(errors="surrogatepass"), text=True)
    assert (await broken.closed())[0] == 1007
    await seen(live, "realtime_closed_total", by="client", code="1007")


async def test_a_connection_ends_once() -> None:
    service = FastAPI()
    service.state.connection_counts = counts = ConnectionCounts(CollectorRegistry())

    async def part(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 1013})
        await receive()

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.disconnect", "code": 1013}

    async def send(_: Any) -> None:
        return None

    await RealtimeMetricsMiddleware(part)({"type": "websocket", "app": service}, receive, send)
    samples = [sample for metric in counts.closed.collect() for sample in metric.samples]
    assert [(sample.labels, sample.value) for sample in samples] == [({"by": "service", "code": "1013"}, 1)]
