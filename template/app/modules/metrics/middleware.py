"""What is measured of requests. Labels come from the routes, never from what a client has sent."""

import time
from functools import cached_property

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.modules.metrics.service import Metrics

# RFC 9110 and RFC 5789; the conventions of OpenTelemetry call any other _OTHER.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"})
# As nginx logs requests whose clients went before they were answered.
WENT = 499


class Routes:
    """The templates of an application's paths, as they are written at the routes."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    @cached_property
    def _templates(self) -> dict[int, str]:
        # A router that is included keeps its routes as they are, without the prefix.
        return {id(context.original_route): context.path or "" for context in iter_route_contexts(self._app.routes)}

    def template(self, scope: Scope) -> str:
        """Return the template of a request's path; nothing where no route has answered."""
        return self._templates.get(id(scope.get("route")), "")


class MetricsMiddleware:
    """Measures HTTP requests, also those that are refused on their way to a route."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._routes: Routes | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection; only HTTP requests are measured."""
        metrics: Metrics | None = getattr(scope["app"].state, "metrics", None)
        if scope["type"] != "http" or metrics is None:
            await self.app(scope, receive, send)
            return
        routes = self._routes = self._routes or Routes(scope["app"])
        started, status, measured, gone = time.perf_counter(), WENT, False, False

        def measure() -> None:
            nonlocal measured
            measured = True
            method = scope["method"] if scope["method"] in METHODS else "_OTHER"
            durations = metrics.requests.labels(method, routes.template(scope), str(WENT if gone else status))
            durations.observe(time.perf_counter() - started)

        async def hear() -> Message:
            nonlocal gone
            message = await receive()
            # While nothing is answered; what is answered then, nobody hears.
            gone |= message["type"] == "http.disconnect" and status == WENT
            return message

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                # What is done in the background afterwards keeps no client waiting.
                measure()

        with metrics.active.track_inprogress():
            try:
                await self.app(scope, hear, watch)
            finally:
                if not measured:
                    measure()
