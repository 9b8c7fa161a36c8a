"""Rooms: a kind of them says who may enter. A module adds its own with `@room`, in a file that its module imports."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

from app.ports.db.database import Database
from app.ports.identity.identity import Identity

MayEnter = Callable[[Database, Identity, str], Awaitable[bool]]
KINDS: dict[str, "Kind"] = {}


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of room. `presence` tells who comes and goes; `clients_send` lets those inside tell the others."""

    name: str
    may_enter: MayEnter
    presence: bool
    clients_send: bool


def room(kind: str, *, presence: bool = False, clients_send: bool = False) -> Callable[[MayEnter], MayEnter]:
    """Add a kind of room. The function tells whether somebody may enter the one with a name, which is any text."""

    def register(may_enter: MayEnter) -> MayEnter:
        KINDS[kind] = Kind(kind, may_enter, presence, clients_send)
        return may_enter

    return register


def kind_of(name: str) -> Kind | None:
    """Return the kind of a room."""
    return KINDS.get(name.partition(":")[0])


def user_room(user_id: UUID) -> str:
    """Name the room of a user, which all connections of theirs are in and nobody else's."""
    return f"user:{user_id}"


@room("user")
async def is_mine(database: Database, me: Identity, name: str) -> bool:
    """Let nobody but its user into a room."""
    return name == str(me.user_id)
