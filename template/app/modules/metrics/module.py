"""Metrics, as a part of the service."""

from app.kit.module import Module, Tier
from app.modules.metrics.endpoints import router
from app.modules.metrics.middleware import MetricsMiddleware
from app.modules.metrics.service import lifespan
from app.modules.metrics.settings import MetricsSettings

metrics = Module(
    name="metrics",
    routers={Tier.PUBLIC: [router]},
    settings=[MetricsSettings],
    lifespan=lifespan,
    middleware=[MetricsMiddleware],
)
