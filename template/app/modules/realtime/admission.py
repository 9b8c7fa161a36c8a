"""Who may connect: the origin of a page, the limits, and what a client shows of itself."""

from typing import Any
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket

from app.kit.errors import AppError
from app.kit.limits import RateLimiter, client_key
from app.kit.settings import CoreSettings, load
from app.modules.realtime.settings import RealtimeSettings
from app.modules.realtime.tickets import PREFIX, Shown, Tickets, bearer, shown_by
from app.ports.identity.identity import Identity, authenticate

LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class Refused(AppError):
    """This client may not connect."""

    def __init__(self, status: int, detail: str, code: str | None = None) -> None:
        super().__init__(detail)
        self.status, self.code = status, code


class _Route:
    """What an identity provider asks of the route that a request is for."""

    tags = ("realtime",)
    openapi_extra = None


def check_origin(websocket: WebSocket) -> None:
    """Refuse pages of other sites: a browser lets them connect, with its cookies and from inside a network.

    Programs send no origin. In development pages on this machine may connect. CORS_ORIGINS may be * in production,
    where no page gets an answer with cookies; here it would. Raises Refused.
    """
    core = load(CoreSettings)
    own = getattr(websocket.app.state, "own_origin", None)
    ours = {*load(RealtimeSettings).realtime_origins, *core.cors_origins, own}
    for origin in websocket.headers.getlist("origin"):
        try:
            at_home = not core.production and urlsplit(origin).hostname in LOOPBACK
        except ValueError:
            at_home = False
        anyone = "*" in ours and not core.production
        if not at_home and not anyone and origin.lower() not in ours:
            raise Refused(403, "Pages of this origin may not connect: add it to REALTIME_ORIGINS.", "wrong_origin")


async def count_handshake(websocket: WebSocket) -> None:
    """Count a connection like a request: middleware does not see it. Raises Refused."""
    limiter: RateLimiter = websocket.app.state.limiter
    if limiter.enabled:
        client = client_key(websocket.client.host) if websocket.client else "unknown"
        verdict = await limiter.count(limiter.default, limiter.default.key_for(client))
        if verdict.used > verdict.limit:
            raise Refused(429, "Too many requests. Wait a while.")


async def read_shown(websocket: WebSocket, tickets: Tickets) -> Shown:
    """Return what a client shows: a ticket or a token in the query, or headers. Raises Refused."""
    given = websocket.query_params.getlist("token")
    if len(given) > 1:
        raise Refused(400, "There is more than one token.")
    return await read_token(given[0], tickets) if given else shown_by(websocket.headers)


async def read_token(token: str, tickets: Tickets) -> Shown:
    """Return what a ticket stands for, or what a request with an access token shows. Raises Refused."""
    if token.startswith(PREFIX):
        shown = await tickets.take(token)
        if shown is None:
            raise Refused(401, "The ticket has been used, has expired, or never was one: get a new one.")
        return shown
    if token.count(".") == 2 and load(RealtimeSettings).realtime_token_in_url:
        return bearer(token)
    raise Refused(401, "This takes a ticket. API keys and other tokens belong into the Authorization header.")


async def identify(websocket: HTTPConnection, shown: Shown, method: str = "GET") -> Identity:
    """Ask the provider of identity who shows this, as for a request. With GET, who may only read is let in too."""
    scope: dict[str, Any] = {
        **{key: websocket.scope.get(key) for key in ("app", "client", "path", "root_path", "scheme", "server")},
        "type": "http",
        "method": method,
        "query_string": b"",
        "headers": shown,
        "route": _Route,
        "state": {},
    }
    return await authenticate(HTTPConnection(scope))
