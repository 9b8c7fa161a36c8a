"""Health, as a part of the service."""

from app.kit.module import Module, Tier
from app.modules.health.endpoints import make_router

health = Module(
    name="health", routers={Tier.ROOT: [make_router(in_schema=False)], Tier.PUBLIC: [make_router(in_schema=True)]}
)
