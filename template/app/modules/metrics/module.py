"""Metrics, as a part of the service."""

from app.kit.module import HealthCheck, Module, Tier
from app.modules.metrics.endpoints import router
from app.modules.metrics.middleware import MetricsMiddleware
from app.modules.metrics.service import check, lifespan
from app.modules.metrics.settings import MetricsSettings

metrics = Module(
    name="metrics",
    routers={Tier.PUBLIC: [router]},
    settings=[MetricsSettings],
    lifespan=lifespan,
    health_checks=[HealthCheck("metrics", check, advice="Look at the log.", critical=False)],
    middleware=[MetricsMiddleware],
)
