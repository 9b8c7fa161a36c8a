"""What modules do is done by somebody: `client` is signed in, and `sign_in` makes others."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient

from app.ports.db.database import Database
from app.ports.identity.oidc import OidcSettings, OidcVerifier
from tests.issuer import AUDIENCE, Issuer

SignIn = Callable[..., AsyncClient]


@pytest.fixture(scope="session")
def issuer() -> Iterator[Issuer]:
    with Issuer() as issuer:
        yield issuer


@pytest.fixture
async def verifier(app: FastAPI, issuer: Issuer) -> AsyncIterator[OidcVerifier]:
    before = app.state.verifier
    app.state.verifier = verifier = OidcVerifier(OidcSettings(oidc_issuer=issuer.url, oidc_audience=AUDIENCE))
    yield verifier
    app.state.verifier = before
    await verifier.keys.close()


@pytest.fixture
async def sign_in(
    app: FastAPI, database: Database, issuer: Issuer, verifier: OidcVerifier
) -> AsyncIterator[Callable[..., AsyncClient]]:
    """Make a client that sends a token with these claims."""
    async with AsyncExitStack() as stack:

        def client(**claims: Any) -> AsyncClient:
            headers = {"Authorization": f"Bearer {issuer.token(**claims)}"}
            made = AsyncClient(transport=ASGITransport(app), base_url="http://test", headers=headers)
            stack.push_async_callback(made.aclose)
            return made

        yield client


@pytest.fixture
def client(sign_in: SignIn) -> AsyncClient:
    return sign_in(sub="ada", email="ada@example.com", email_verified=True, name="Ada")
