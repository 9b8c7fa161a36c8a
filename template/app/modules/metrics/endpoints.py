"""Routes of metrics, for Prometheus and whatever reads its formats."""

from datetime import datetime
from hmac import compare_digest
from typing import Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from app.kit import clock
from app.kit.errors import AppError, responses
from app.kit.settings import load
from app.modules.metrics.service import Metrics
from app.modules.metrics.settings import MetricsSettings


class NoToken(AppError):
    """The token of scrapes was not shown."""

    status = 401
    headers = {"WWW-Authenticate": "Bearer"}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__("Show the token of METRICS_TOKEN: Authorization: Bearer ...")


async def admit(request: Request) -> None:
    """Let a request pass that shows the token, where there is one. Raises NoToken."""
    token = load(MetricsSettings).metrics_token
    scheme, _, shown = request.headers.get("authorization", "").partition(" ")
    if token and not (
        compare_digest(shown.strip().encode(), token.get_secret_value().encode()) and scheme.lower() == "bearer"
    ):
        raise NoToken


class ReadingRead(BaseModel):
    """How a part of the metrics could be read."""

    name: str = Field(examples=["database"])
    status: Literal["ok", "failed"]
    duration_ms: float = Field(ge=0)


class MetricsHealth(BaseModel):
    """Whether all that is measured is there."""

    status: Literal["healthy", "degraded"]
    timestamp: datetime
    readings: list[ReadingRead]


router = APIRouter(prefix="/metrics", tags=["metrics"], dependencies=[Depends(admit)], responses=responses(401))


@router.get(
    "",
    summary="Read the metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}, "application/openmetrics-text": {}}}},
)
async def read_metrics(request: Request) -> Response:
    """Give all metrics of this process, in Prometheus' text format or in OpenMetrics."""
    metrics: Metrics = request.app.state.metrics
    written, media_type = await metrics.write(request.headers.get("accept", ""))
    return Response(written, media_type=media_type)


@router.get("/health", summary="Are the metrics whole?", responses={503: {"model": MetricsHealth}})
async def read_metrics_health(request: Request, response: Response) -> MetricsHealth:
    """Say which parts of the metrics could be read; a failure means: numbers are missing."""
    metrics: Metrics = request.app.state.metrics
    found = [
        ReadingRead(
            name=reading.name,
            status="failed" if reading.found is None else "ok",
            duration_ms=round(reading.seconds * 1000, 2),
        )
        for reading in await metrics.readings()
    ]
    whole = all(reading.status == "ok" for reading in found)
    response.status_code = 200 if whole else 503
    return MetricsHealth(status="healthy" if whole else "degraded", timestamp=clock.now(), readings=found)
