"""Scopes: what a key may do. They follow from the routes, so whatever a module adds has its own from the first day."""

from collections.abc import Collection, Iterator

from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.requests import HTTPConnection

from app.kit.module import Tier
from app.modules.access.service import READING, CurrentCaller, require_sign_in
from app.ports.identity.bearer import Forbidden

SCOPE = r"^[a-z][a-z0-9-]*(:(read|write))?$"
ADMIN = "admin"


class InsufficientScope(Forbidden):
    """The key is good, and is not for this (RFC 6750, 3.1)."""

    def __init__(self, scope: str) -> None:
        super().__init__(f"This key does not have the scope {scope}.", "insufficient_scope")
        self.headers = {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{scope}"'}


def available(app: FastAPI) -> list[str]:
    """List all scopes that a key of this service can have."""
    resources = [*sorted(set(_resources(app))), ADMIN]
    return ["read", "write", *(f"{resource}:{action}" for resource in resources for action in ("read", "write"))]


def _resources(app: FastAPI) -> Iterator[str]:
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if isinstance(route, APIRoute) and route.tags and (context.path or "").startswith(f"{Tier.APP}/"):
            # Where no key gets in, none needs a scope.
            if any(dependency.dependency is require_sign_in for dependency in route.dependencies):
                continue
            yield resource_of(route)


def resource_of(route: object) -> str:
    """Name the kind of thing that a route is about: its first tag. Without one, no scope for one kind is enough."""
    tags = getattr(route, "tags", None) or [""]
    return str(tags[0])


def method_of(connection: HTTPConnection) -> str:
    """Return the method of a request. A WebSocket has none, and may change things."""
    return str(connection.scope.get("method", ""))


def demand(scopes: Collection[str], resource: str, method: str) -> None:
    """Let a request through that one of the scopes is for; who may write may read. Raises InsufficientScope."""
    reading = method in READING
    enough = {f"{resource}:write", *([f"{resource}:read"] if reading else [])} if resource else set()
    if resource != ADMIN:
        enough |= {"write", *(["read"] if reading else [])}
    if enough.isdisjoint(scopes):
        action = "read" if reading else "write"
        raise InsufficientScope(f"{resource}:{action}" if resource else action)


def demand_here(connection: HTTPConnection, scopes: Collection[str]) -> None:
    """Let a key do what its scopes are for, and no more: what is for admins has a guard. Raises InsufficientScope."""
    path = connection.scope["path"].removeprefix(connection.scope.get("root_path", ""))
    if not path.startswith(f"{Tier.ADMIN}/"):
        demand(scopes, resource_of(connection.scope.get("route")), method_of(connection))


async def require_admin_scope(connection: HTTPConnection, me: CurrentCaller) -> None:
    """Let a key of an admin do what admins do, if it is for that. Raises InsufficientScope."""
    if me.scopes is not None:
        demand(me.scopes, ADMIN, method_of(connection))
