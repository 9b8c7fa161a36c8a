"""The anonymous provider: nobody signs in, and one built-in user owns everything."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from fastapi import FastAPI
from starlette.requests import HTTPConnection

from app.kit.module import Module
from app.ports.identity.identity import Identity

ANONYMOUS = Identity(user_id=UUID(int=1), subject="anonymous", name="Anonymous")


async def identify(connection: HTTPConnection) -> Identity:
    """Take every caller for the built-in user."""
    return ANONYMOUS


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Make this the provider of the service."""
    app.state.identify = identify
    yield


identity = Module(name="identity", lifespan=lifespan)
