"""The middleware around every request. Pure ASGI: BaseHTTPMiddleware costs a task and a queue per request."""

import re
import time
from secrets import token_hex

from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, reset_contextvars

from app.kit.errors import problem
from app.kit.logging import get_logger, redact_text
from app.kit.security import DOCS_PATHS, security_headers

QUIET_PATHS = frozenset({"/health", "/health/live", "/health/ready", "/health/db"})
_sane_request_id = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{7,127}").fullmatch
log = get_logger("app.access")


class RequestContextMiddleware:
    """Gives a request its id, adds the headers of every response, logs the access and answers what nobody caught.

    A client's `X-Request-ID` is kept when it is 8 to 128 characters of A-Z, a-z, 0-9, dot, dash and underscore;
    anything else is replaced.
    """

    def __init__(self, app: ASGIApp, *, production: bool, debug: bool) -> None:
        self.app, self.debug = app, debug
        self.api_headers = security_headers(https=production)
        self.docs_headers = security_headers(https=production, docs=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection; only HTTP requests are touched."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = dict(scope["headers"]).get(b"x-request-id", b"")
        if not _sane_request_id(request_id):
            request_id = token_hex(16).encode()
        path = scope["path"]
        scope.setdefault("state", {})["request_id"] = request_id.decode()
        extra = self.docs_headers if path in DOCS_PATHS else self.api_headers
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                present = {name for name, _ in message["headers"]}
                added = [(b"x-request-id", request_id), *(header for header in extra if header[0] not in present)]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        tokens = bind_contextvars(request_id=request_id.decode())
        try:
            await self.app(scope, receive, send_with_headers)
        except Exception as error:
            log.exception("unhandled error", method=scope["method"], path=path)
            if status:
                raise
            debug = redact_text(f"{type(error).__name__}: {error}") if self.debug else None
            detail = "Something went wrong on our side. Quote the request id when you report it."
            await problem(scope, 500, detail, code="internal_error", debug=debug)(scope, receive, send_with_headers)
        finally:
            if path not in QUIET_PATHS or status >= 500:
                log.info(
                    "request",
                    method=scope["method"],
                    path=path,
                    status=status,
                    duration_ms=round((time.perf_counter() - started) * 1000, 2),
                    client=scope["client"][0] if scope.get("client") else None,
                )
            reset_contextvars(**tokens)


class BodyLimitMiddleware(RequestBodyLimitMiddleware):
    """Refuses a body whose length is told and too large before it comes, and counts those that are streamed."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection. What has no body passes at once, and so does what a module bounds itself."""
        headers, state = dict(scope.get("headers", ())), getattr(scope.get("app"), "state", None)
        length = headers.get(b"content-length", b"")
        bare = not length and b"transfer-encoding" not in headers and scope.get("method") in {"GET", "HEAD"}
        if bare or scope.get("path", "").startswith(getattr(state, "self_bounded", ())):
            await self.app(scope, receive, send)
        elif length.isdigit() and (len(length) > 18 or int(length) > self.max_body_size):
            await problem(scope, 413, f"The body may hold at most {self.max_body_size} bytes.")(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)
