"""Realtime, as a part of the service: clients that stay connected, and what they are told."""

from fastapi import FastAPI

from app.kit.module import HealthCheck, Module, Tier
from app.modules.realtime.endpoints import router, socket
from app.modules.realtime.service import Hub, check_now, lifespan
from app.modules.realtime.settings import RealtimeSettings


class ProcessesApart(Exception):
    """What is told in one process does not reach the clients of the others."""


async def check(app: FastAPI) -> str:
    """Count the connections. Raises ProcessesApart while other processes are not heard."""
    hub: Hub = app.state.realtime
    if trouble := hub.pubsub.trouble():
        raise ProcessesApart(trouble)
    return f"{len(hub.connections)} connections; reaches {hub.pubsub.reach}"


realtime = Module(
    name="realtime",
    routers={Tier.ROOT: [socket], Tier.APP: [router]},
    settings=[RealtimeSettings],
    lifespan=lifespan,
    on_lock_out=[check_now],
    health_checks=[
        HealthCheck(
            "realtime", check, advice="Until it is back, clients of other processes hear nothing.", critical=False
        ),
    ],
)
