"""What modules do is done by somebody: `client` is signed in, and `sign_in` makes others."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient, Auth, Request, Response

from app.ports.db.database import Database
from tests.provider import Provider

SignIn = Callable[..., AsyncClient]


class SignedIn(Auth):
    """Signs somebody in before their first request."""

    def __init__(self, provider: Provider, app: FastAPI, claims: dict[str, Any]) -> None:
        self.provider, self.app, self.claims = provider, app, claims
        self.token = ""

    async def async_auth_flow(self, request: Request) -> AsyncGenerator[Request, Response]:
        self.token = self.token or await self.provider.sign_in(self.app, **self.claims)
        request.headers["Authorization"] = f"Bearer {self.token}"
        yield request


@pytest.fixture(scope="session")
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


@pytest.fixture
async def verifying(app: FastAPI, provider: Provider) -> AsyncIterator[None]:
    async with provider.verifying(app):
        yield


@pytest.fixture
async def sign_in(
    app: FastAPI, database: Database, provider: Provider, verifying: None
) -> AsyncIterator[Callable[..., AsyncClient]]:
    """Make a client that sends a token with these claims."""
    async with AsyncExitStack() as stack:

        def client(**claims: Any) -> AsyncClient:
            auth = SignedIn(provider, app, claims)
            made = AsyncClient(transport=ASGITransport(app), base_url="http://test", auth=auth)
            stack.push_async_callback(made.aclose)
            return made

        yield client


@pytest.fixture
def client(sign_in: SignIn) -> AsyncClient:
    return sign_in(sub="ada", email="ada@example.com", email_verified=True, name="Ada")
