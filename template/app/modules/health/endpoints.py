"""Health routes: at the root for orchestrators, and under the public tier for clients."""

from fastapi import APIRouter, Request, Response

from app.modules.health.service import DatabaseHealth, Health, Readiness, database_health, health, readiness


def make_router(*, in_schema: bool) -> APIRouter:
    """Make the routes once for each place that they are mounted at."""
    router = APIRouter(prefix="/health", tags=["health"], include_in_schema=in_schema)

    @router.get("", summary="Is the service up?")
    async def read_health(request: Request) -> Health:
        """Answer at once, without a look at anything else."""
        return health(request.app)

    @router.get("/live", summary="Is the process alive?")
    async def read_liveness() -> dict[str, str]:
        """Answer as long as the event loop turns; a failure means: restart the process."""
        return {"status": "alive"}

    @router.get("/ready", summary="Can requests be served?", responses={503: {"model": Readiness}})
    async def read_readiness(request: Request, response: Response) -> Readiness:
        """Look at every dependency; a failure means: send no traffic for now."""
        found = await readiness(request.app)
        response.status_code = 200 if found.status == "ready" else 503
        return found

    @router.get(
        "/db",
        summary="How is the database?",
        responses={503: {"model": DatabaseHealth}},
        response_model_exclude_none=True,
    )
    async def read_database_health(request: Request, response: Response) -> DatabaseHealth:
        """Look at the connection, the pool and the migrations."""
        found = await database_health(request.app)
        response.status_code = 200 if found.database_connected else 503
        return found

    return router
