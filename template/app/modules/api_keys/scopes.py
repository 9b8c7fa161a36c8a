"""Scopes: what a key may do. They follow from the routes, so whatever a module adds has its own from the first day."""

from collections.abc import Collection, Iterator

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute, iter_route_contexts

from app.kit.module import Tier
from app.modules.access.service import READING, CurrentCaller, require_sign_in
from app.ports.identity.bearer import Forbidden

SCOPE = r"^[a-z][a-z0-9-]*(:(read|write))?$"
ADMIN = "admin"


class InsufficientScope(Forbidden):
    """The key is good, and is not for this (RFC 6750, 3.1)."""

    def __init__(self, scope: str) -> None:
        super().__init__(f"This key has not the scope {scope}.", "insufficient_scope")
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
            yield str(route.tags[0])


def demand(scopes: Collection[str], resource: str, method: str) -> None:
    """Let a request through that one of the scopes is for; who may write may read. Raises InsufficientScope."""
    reading = method in READING
    enough = {f"{resource}:write", *([f"{resource}:read"] if reading else [])}
    if resource != ADMIN:
        enough |= {"write", *(["read"] if reading else [])}
    if enough.isdisjoint(scopes):
        raise InsufficientScope(f"{resource}:{'read' if reading else 'write'}")


async def require_scope(request: Request, me: CurrentCaller) -> None:
    """Let a key do what its scopes are for, and no more. Raises InsufficientScope."""
    if me.scopes is not None:
        tags = getattr(request.scope.get("route"), "tags", None) or ["write"]
        demand(me.scopes, str(tags[0]), request.method)


async def require_admin_scope(request: Request, me: CurrentCaller) -> None:
    """Let a key of an admin do what admins do, if it is for that. Raises InsufficientScope."""
    if me.scopes is not None:
        demand(me.scopes, ADMIN, request.method)
