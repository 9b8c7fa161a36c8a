"""The composition root: builds the application from the modules in `app.installed`."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute
from starlette.middleware.cors import CORSMiddleware

from app.installed import DESCRIPTION, DISTRIBUTION, MODULES, TITLE
from app.kit.errors import ERROR_HANDLERS, Problem, responses
from app.kit.http import BodyLimitMiddleware, RequestContextMiddleware
from app.kit.limits import LimitSettings, RateLimiter, RateLimitMiddleware
from app.kit.logging import LogSettings, configure_logging, get_logger
from app.kit.module import Tier
from app.kit.settings import CoreSettings, ModuleSettings, SettingsError, load
from app.ports.identity.identity import authenticate

TIER_DEPENDENCIES = {Tier.APP: [Depends(authenticate)], Tier.ADMIN: [Depends(authenticate)]}
TIER_PROBLEMS = {Tier.PUBLIC: (422, 429, 503)}
log = get_logger(__name__)


def settings_classes() -> tuple[type[ModuleSettings], ...]:
    """Every settings class of this service, in the order of `.env.example`."""
    classes = (settings for module in MODULES for settings in module.settings)
    return tuple(dict.fromkeys((CoreSettings, LogSettings, LimitSettings, *classes)))


def check_settings() -> None:
    """Load all settings. Raises SettingsError with every problem of every module at once."""
    problems = []
    for settings in settings_classes():
        try:
            load(settings)
        except SettingsError as error:
            problems.append(str(error))
    if problems:
        raise SettingsError("\n".join(problems))


def operation_id(route: APIRoute) -> str:
    """Name an operation `tag-function`, which makes good method names in generated clients."""
    return f"{route.tags[0]}-{route.name}" if route.tags else route.name


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open every module in order. Those that are open are closed in reverse, also when a later one fails to open."""
    stack = AsyncExitStack()
    try:
        for module in MODULES:
            if module.lifespan is not None:
                await stack.enter_async_context(module.lifespan(app))
        log.info("started", modules=[module.name for module in MODULES])
        yield
    finally:
        await stack.aclose()
        log.info("stopped")


def create_app() -> FastAPI:
    """Build the application. Raises SettingsError when a setting is missing or wrong."""
    check_settings()
    settings = load(CoreSettings)
    configure_logging(load(LogSettings), production=settings.production)
    handlers: dict[Any, Any] = ERROR_HANDLERS | dict(it for module in MODULES for it in module.error_handlers.items())
    app = FastAPI(
        title=TITLE,
        description=DESCRIPTION,
        version=version(DISTRIBUTION),
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url="/docs" if settings.docs else None,
        redoc_url="/redoc" if settings.docs else None,
        openapi_url="/openapi.json" if settings.docs else None,
        generate_unique_id_function=operation_id,
        exception_handlers=handlers,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.limiter = RateLimiter(load(LimitSettings))
    app.state.modules = MODULES
    app.state.health_checks = [check for module in MODULES for check in module.health_checks]
    for tier in Tier:
        guards = [Depends(guard) for module in MODULES for guard in module.guards.get(tier, ())]
        for router in [router for module in MODULES for router in module.routers.get(tier, ())]:
            if tier is Tier.ROOT:
                # As they are, with nothing added: what is included is matched twice, and health is asked all the time.
                app.router.routes.extend(router.routes)
            else:
                app.include_router(
                    router,
                    prefix=tier,
                    dependencies=[*TIER_DEPENDENCIES.get(tier, ()), *guards],
                    responses=responses(*TIER_PROBLEMS.get(tier, (401, 403, 422, 429, 503))),
                )
    # The last one added is the outermost.
    app.add_middleware(BodyLimitMiddleware, max_body_size=settings.max_body_bytes)
    app.add_middleware(RateLimitMiddleware, limiter=app.state.limiter)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_credentials=settings.cors_allow_credentials,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["X-Request-ID", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"],
        )
    app.add_middleware(RequestContextMiddleware, production=settings.production, debug=settings.debug)
    for middleware in [it for module in MODULES for it in module.middleware]:
        app.add_middleware(middleware)
    _describe_problems(app)
    return app


def _describe_problems(app: FastAPI) -> None:
    """Put the problem document, which the responses refer to, into the OpenAPI document."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schemas = generate().setdefault("components", {}).setdefault("schemas", {})
            problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(problem.pop("$defs"), Problem=problem)
        return generate()

    app.openapi = openapi  # type: ignore[method-assign]
