"""What a module contributes to the service. The composition root reads these and never asks what is in them."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from fastapi import APIRouter, FastAPI, Request, Response

from app.kit.settings import ModuleSettings

if TYPE_CHECKING:
    import typer
    from sqlmodel import SQLModel
    from sqlmodel.ext.asyncio.session import AsyncSession

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]
# Called with the session in which a user is locked out, and their id.
LockOut = Callable[["AsyncSession", UUID], Awaitable[None]]
ErrorHandler = Callable[[Request, Any], Response | Awaitable[Response]]


class Tier(StrEnum):
    """Who may call a router; the value is the prefix of its paths. Routes are tried in this order."""

    ROOT = ""
    APP = "/api/v1/app"
    ADMIN = "/api/v1/admin"
    PUBLIC = "/api/v1/public"


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """A dependency, for readiness and `app doctor`; `check` raises when it cannot be used, and may return a remark."""

    name: str
    check: Callable[[FastAPI], Awaitable[object]]
    advice: str
    critical: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One part of the service. Lifespans open in the order of `MODULES` and close in the reverse order."""

    name: str
    routers: Mapping[Tier, Sequence[APIRouter]] = field(default_factory=dict)
    guards: Mapping[Tier, Sequence[Callable[..., Any]]] = field(default_factory=dict)
    tables: Sequence["type[SQLModel]"] = ()
    settings: Sequence[type[ModuleSettings]] = ()
    lifespan: Lifespan | None = None
    middleware: Sequence[Callable[..., Any]] = ()  # Pure ASGI, around all requests, also those that are refused.
    on_lock_out: Sequence[LockOut] = ()
    health_checks: Sequence[HealthCheck] = ()
    error_handlers: Mapping[type[Exception], ErrorHandler] = field(default_factory=dict)
    commands: "typer.Typer | None" = None
    erase: Callable[[Any, Any], Awaitable[None]] | None = None  # In a session, what belongs to the user with an id.
    export: Callable[[Any, Any], Awaitable[Any]] | None = None  # The same, as what can be written as JSON.
