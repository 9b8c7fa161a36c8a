"""What is measured of connections that stay, as a part of the service."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.kit.module import Module
from app.modules.metrics.service import Metrics
from app.modules.realtime.service import Hub

# Those of the protocol (RFC 6455, 7.4.1); any other is a client's own choice, of thousands.
CODES = range(1000, 1016)


class ConnectionCounts:
    """How connections begin and end in this process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.handshakes = Counter(
            "realtime_handshakes",
            "Answers to handshakes: 101 for those that are let in.",
            ["status"],
            registry=registry,
        )
        self.closed = Counter(
            "realtime_closed",
            "Connections that have ended, by who has closed them or broken the protocol.",
            ["by", "code"],
            registry=registry,
        )


class RealtimeMetricsMiddleware:
    """Counts WebSockets as they come and go: 1013 of the service is a client that was too slow."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection; only WebSockets are counted."""
        counts: ConnectionCounts | None = getattr(scope["app"].state, "connection_counts", None)
        if scope["type"] != "websocket" or counts is None:
            await self.app(scope, receive, send)
            return
        accepted = ended = False

        async def watch_sent(message: Message) -> None:
            nonlocal accepted, ended
            if message["type"] == "websocket.accept":
                accepted = True
                counts.handshakes.labels("101").inc()
            elif message["type"] == "websocket.http.response.start":
                counts.handshakes.labels(str(message["status"])).inc()
            elif message["type"] == "websocket.close" and not accepted:
                counts.handshakes.labels("403").inc()  # As ASGI has it.
            elif message["type"] == "websocket.close" and not ended:
                ended = True
                counts.closed.labels("service", str(message.get("code", 1000))).inc()
            await send(message)

        async def watch_received() -> Message:
            nonlocal ended
            message = await receive()
            if message["type"] == "websocket.disconnect" and accepted and not ended:
                ended = True
                code = message.get("code") or 1005
                counts.closed.labels("client", str(code) if code in CODES else "other").inc()
            return message

        await self.app(scope, watch_received, watch_sent)


async def read_hub(hub: Hub) -> Sequence[Metric]:
    """Count who is connected to this process."""
    return [
        GaugeMetricFamily("realtime_connections", "Connections of this process.", len(hub.connections)),
        GaugeMetricFamily("realtime_users", "Users who are connected to this process.", len(hub.users)),
        GaugeMetricFamily("realtime_rooms", "Rooms with somebody of this process in them.", len(hub.rooms)),
        GaugeMetricFamily(
            "realtime_reaches_others", "Whether other processes are heard, if there are any.", not hub.pubsub.trouble()
        ),
    ]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Have connections counted."""
    metrics: Metrics = app.state.metrics
    app.state.connection_counts = ConnectionCounts(metrics.registry)
    metrics.read("realtime", lambda: read_hub(app.state.realtime))
    yield


metrics_realtime = Module(name="metrics_realtime", lifespan=lifespan, middleware=[RealtimeMetricsMiddleware])
