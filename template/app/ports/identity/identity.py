"""The identity port: who is calling. Modules take `CurrentIdentity` and never ask which provider there is."""

from dataclasses import dataclass
from typing import Annotated, Protocol
from uuid import UUID

from fastapi import Depends
from starlette.requests import HTTPConnection


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A caller, as the provider vouches for them. `user_id` is the key of their row, whether it is there yet or not."""

    user_id: UUID
    subject: str
    email: str | None = None
    name: str | None = None


class IdentityProvider(Protocol):
    """What an adapter does."""

    async def identify(self, connection: HTTPConnection) -> Identity:
        """Return the caller of a request or WebSocket. Raises an AppError with status 401 when there is none."""


async def authenticate(connection: HTTPConnection) -> Identity:
    """Ask the provider of this service who is calling."""
    provider: IdentityProvider = connection.app.state.identity_provider
    return await provider.identify(connection)


CurrentIdentity = Annotated[Identity, Depends(authenticate)]
