"""What goes over the wire in realtime: the messages of clients, and what routes answer."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, JsonValue, StringConstraints, TypeAdapter, ValidationError

from app.kit.schemas import Body

ROOM_PATTERN = r"^[a-z][a-z0-9_-]{0,31}:[A-Za-z0-9._~-]{1,100}$"
RoomName = Annotated[str, StringConstraints(pattern=ROOM_PATTERN, max_length=133)]
EventName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_.-]{0,63}$")]


class Message(Body):
    """A message of a client. What answers it has the same `ref`."""

    ref: Annotated[str, StringConstraints(max_length=64)] | None = None


class Join(Message):
    """Enter a room, to hear what happens there."""

    type: Literal["join"]
    room: RoomName


class Leave(Message):
    """Leave a room."""

    type: Literal["leave"]
    room: RoomName


class Present(Message):
    """Ask who is in a room."""

    type: Literal["present"]
    room: RoomName


class Say(Message):
    """Tell all who are in a room."""

    type: Literal["send"]
    room: RoomName
    event: EventName
    data: JsonValue = None


class Renew(Message):
    """Go on with a newer token, or with a ticket that was made with one."""

    type: Literal["renew"]
    token: Annotated[str, StringConstraints(max_length=8192)]


class Ping(Message):
    """Ask for a sign of life: pages see no pings of the protocol."""

    type: Literal["ping"]


_messages: TypeAdapter[Join | Leave | Present | Say | Renew | Ping] = TypeAdapter(
    Annotated[Join | Leave | Present | Say | Renew | Ping, Field(discriminator="type")]
)


class WrongMessageError(Exception):
    """A message cannot be understood; it says what is wrong with it in a sentence."""


def read_message(text: str) -> Join | Leave | Present | Say | Renew | Ping:
    """Read a message of a client. Raises WrongMessageError."""
    try:
        return _messages.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        raise WrongMessageError(f"This is not JSON: {first['ctx']['error']}.")
    if first["type"] in {"union_tag_not_found", "union_tag_invalid", "model_attributes_type"}:
        raise WrongMessageError("A message is an object with a type: join, leave, present, send, renew or ping.")
    if first["loc"][-1:] == ("room",) and first["type"] == "string_pattern_mismatch":
        raise WrongMessageError("room: A room is called kind:name, such as user:123.")
    place = ".".join(map(str, first["loc"][1:]))[:100]
    if not place:
        raise WrongMessageError("A message is an object with a type: join, leave, present, send, renew or ping.")
    raise WrongMessageError(f"{place}: {first['msg'].removeprefix('Value error, ')}.")


class Ticket(BaseModel):
    """What lets a client connect once, soon."""

    ticket: str = Field(description="For ?token=, or for the message renew.")
    expires_in: int = Field(description="How many seconds it is good.")


class RealtimeStatus(BaseModel):
    """How realtime is, for those who connect to it."""

    reach: str = Field(description="Who hears what is told in a room.", examples=["this process"])
    connections: int = Field(description="The caller's, in the process that answers.")
    most_connections: int = Field(description="How many the caller may have there.")
    message_bytes: int = Field(description="The largest message that a client may send.")
    ping_seconds: float = Field(description="How often a client is pinged.")
    check_seconds: float = Field(description="Within how long who may no longer be connected is cut off.")
