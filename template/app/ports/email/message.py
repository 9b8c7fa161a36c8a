"""What a mail is, and what sends one. What could mean something to a mail server is refused here, for all providers."""

import asyncio
import re
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from email.headerregistry import Address
from typing import Annotated, Any
from uuid import UUID

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, field_validator

from app.kit import clock
from app.kit.ids import new_id
from app.kit.schemas import Line

MOST_CHARACTERS = 500_000
# Most servers take ten million bytes, and base64 makes four of three.
MOST_ATTACHED_BYTES = 7_000_000
MOST_ATTACHMENTS = 20
# No header chooses who gets a mail, what its parts are or what is attached: those are fields, or nothing at all.
HEADERS = ("Auto-Submitted", "In-Reply-To", "List-Unsubscribe", "List-Unsubscribe-Post", "References")
_header_named = {name.lower(): name for name in HEADERS}.get
_is_header = re.compile(r"[\x20-\x7e]{1,800}").fullmatch
_controls = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]").search


def check_address(value: str) -> str:
    """Return an address as every server takes it, in ASCII. Raises ValueError when it is none."""
    if len(value) > 320:
        raise ValueError("is no e-mail address: it is too long")
    if "=?" in value:
        raise ValueError("is no e-mail address here: mail programs would read =? as the start of something else")
    try:
        return validate_email(value, check_deliverability=False, allow_smtputf8=False, strict=True).ascii_email or ""
    except EmailNotValidError as error:
        raise ValueError(f"is no e-mail address: {error}") from None


def _text(value: str) -> str:
    value = value.replace("\r\n", "\n").replace("\r", "\n")
    if _controls(value):
        raise ValueError("holds a control character")
    return value


# Mail programs would decode what looks like an encoded word (RFC 2047), and show something else than was checked.
_OneLine = Annotated[Line, AfterValidator(lambda value: value.replace("=?", "= ?"))]
EmailAddress = Annotated[str, AfterValidator(check_address)]
_Text = Annotated[str, StringConstraints(min_length=1, max_length=MOST_CHARACTERS), AfterValidator(_text)]


class _Frozen(BaseModel):
    # What was wrong is told without the value, which may be somebody's address.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Mailbox(_Frozen):
    """An address, and the name of whom it belongs to."""

    address: EmailAddress
    name: _OneLine | None = None

    def __str__(self) -> str:
        """Write it as in a header, with the name in quotes where it has to be."""
        return str(Address(display_name=self.name or "", addr_spec=self.address))


def as_base64(content: bytes) -> str:
    """Write bytes as text can hold them (RFC 4648, 4)."""
    return b64encode(content).decode()


# The last part of a path, in letters that no system reads as more than that.
FileName = Annotated[_OneLine, StringConstraints(pattern=r'^[^./\\:*?"<>|][^/\\:*?"<>|]*$')]
# No mails in mails, and nothing that has parts of its own.
MediaType = Annotated[
    str, StringConstraints(pattern=r"^(application|audio|font|image|model|text|video)/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}$")
]


class Attachment(_Frozen):
    """A file that goes with a mail."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    name: FileName
    content_type: MediaType
    content: bytes = Field(strict=True, repr=False)


class Message(_Frozen):
    """One mail to one person. Its id stays the same when it is sent again, so that it can be told from a second one."""

    to: Mailbox
    subject: _OneLine
    text: _Text = Field(repr=False)
    html: _Text | None = Field(None, repr=False)
    reply_to: Mailbox | None = None
    attachments: tuple[Attachment, ...] = Field((), max_length=MOST_ATTACHMENTS)
    # A machine wrote it, so that no other machine answers (RFC 3834).
    headers: Mapping[str, str] = {"Auto-Submitted": "auto-generated"}
    id: UUID = Field(default_factory=new_id)
    written_at: datetime = Field(default_factory=clock.now)

    @field_validator("to", "reply_to", mode="before")
    @classmethod
    def take_address(cls, value: Any) -> Any:
        """Take an address without a name as it is."""
        return {"address": value} if isinstance(value, str) else value

    @field_validator("headers")
    @classmethod
    def check_headers(cls, value: Mapping[str, str]) -> dict[str, str]:
        """Let in the few headers that only tell something, in printable ASCII."""
        named = {_header_named(name.lower(), ""): text for name, text in value.items()}
        if "" in named or len(named) < len(value) or not all(map(_is_header, named.values())):
            raise ValueError(f"may hold {', '.join(HEADERS)}, each on one line of printable ASCII")
        return {"Auto-Submitted": "auto-generated", **named}

    @field_validator("attachments")
    @classmethod
    def check_size(cls, value: tuple[Attachment, ...]) -> tuple[Attachment, ...]:
        """Refuse what hardly any server would take."""
        if sum(len(file.content) for file in value) > MOST_ATTACHED_BYTES:
            raise ValueError(f"may have {MOST_ATTACHED_BYTES:,} bytes in all")
        return value


class EmailFailed(Exception):
    """The provider refused a mail, and would refuse it again. The reason holds no address, and is short."""

    def __init__(self, reason: str) -> None:
        super().__init__(masked(" ".join(reason[:1000].split()))[:300])


class EmailDelayed(EmailFailed):
    """The provider is away or busy: the same mail may be taken later, after so many seconds if it says so."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


def masked(text: str) -> str:
    """Hide the addresses in a text but for their first letter and their domain, for logs."""
    return re.sub(r"([^\s@<>\"'(]?)[^\s@<>\"'(]*@", r"\1***@", text)


class Email(ABC):
    """The port: a provider that sends mails from one sender."""

    def __init__(self, sender: Mailbox, *, timeout: float) -> None:
        self.sender = sender
        self.timeout = timeout

    @classmethod
    def problems(cls) -> list[str]:
        """Say in sentences which settings are missing, for when this is the provider."""
        return []

    async def send(self, message: Message) -> None:
        """Hand a mail over. Raises EmailDelayed when it may be taken later, and EmailFailed when it will not be."""
        async with self._in_time():
            await self.hand_over(message)

    async def check(self) -> str | None:
        """Find out whether mails would be taken, without sending one. Raises EmailFailed, and may return a remark."""
        async with self._in_time():
            return await self.look()

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self.timeout):
                yield
        except TimeoutError:
            raise EmailDelayed("no answer in time") from None

    @abstractmethod
    async def hand_over(self, message: Message) -> None:
        """Do what `send` says, in whatever time it takes."""

    @abstractmethod
    async def look(self) -> str | None:
        """Do what `check` says, in whatever time it takes."""

    async def close(self) -> None:  # noqa: B027 - most have nothing open
        """Close what is open."""
