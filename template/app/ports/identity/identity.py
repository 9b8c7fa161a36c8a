"""The identity port: who is calling. Modules take `CurrentIdentity` and never ask which provider there is."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any
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
    # Their row, where it had to be read to let them in.
    row: Mapping[str, Any] | None = None


# What an adapter does: it returns the caller of a request or WebSocket, or raises an AppError with status 401.
Identify = Callable[[HTTPConnection], Awaitable[Identity]]


async def authenticate(connection: HTTPConnection) -> Identity:
    """Ask the provider of this service who is calling."""
    identify: Identify = connection.app.state.identify
    return await identify(connection)


CurrentIdentity = Annotated[Identity, Depends(authenticate)]
