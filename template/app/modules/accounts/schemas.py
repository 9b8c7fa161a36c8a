"""What goes over the wire when people sign up and in."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field, SecretStr, WithJsonSchema

from app.kit.schemas import Body, Line
from app.ports.email.message import EmailAddress

SHORTEST, LONGEST = 12, 128


def _checked(shortest: int) -> AfterValidator:
    def check(value: SecretStr) -> SecretStr:
        """Refuse another length, what no keyboard writes, and what cannot be encoded."""
        text = value.get_secret_value()
        if not shortest <= len(text) <= LONGEST:
            raise ValueError(f"has {len(text)} characters; a password has {shortest} to {LONGEST}")
        if any(ord(character) < 32 or ord(character) == 127 or 0xD800 <= ord(character) < 0xE000 for character in text):
            raise ValueError("holds a control character")
        return value

    return AfterValidator(check)


def _password(shortest: int) -> dict[str, object]:
    return {"type": "string", "format": "password", "writeOnly": True, "minLength": shortest, "maxLength": LONGEST}


Address = Annotated[
    EmailAddress,
    Field(max_length=320, examples=["ada@example.com"]),
    WithJsonSchema({"type": "string", "format": "email", "maxLength": 320}),
]
# What somebody signs in with may be older than the rules for new ones.
Password = Annotated[
    SecretStr,
    _checked(1),
    WithJsonSchema(_password(1)),
]
NewPassword = Annotated[
    SecretStr,
    Field(description=f"{SHORTEST} to {LONGEST} characters, not easy to guess."),
    _checked(SHORTEST),
    WithJsonSchema(_password(SHORTEST)),
]
Token = Annotated[
    str, Field(min_length=1, max_length=200, pattern="^[A-Za-z0-9_-]+$", description="The one from the link.")
]


class EmailRequest(Body):
    """Which address a mail is asked for."""

    email: Address


class NewAccount(Body):
    """What an account is made of, beside an address."""

    password: NewPassword
    display_name: Line | None = Field(None, examples=["Ada Lovelace"])


class Login(Body):
    """Somebody who has an account."""

    email: Address
    password: Password
    cookies: bool = Field(
        False, description="For pages in a browser: keep the tokens in cookies that scripts cannot read."
    )


class RefreshRequest(Body):
    """Which session goes on, or ends. Left out where the cookie says it."""

    refresh_token: str | None = Field(None, min_length=1, max_length=200)


class LinkOpened(Body):
    """A link from a mail was opened."""

    token: Token


class Registration(NewAccount, LinkOpened):
    """An account, by who opened the link to make one."""


class NewAddress(LinkOpened):
    """The new address of an account, by who opened the link that was mailed there and knows the password."""

    password: Password


class PasswordReset(LinkOpened):
    """A new password, by who opened the link to set one."""

    new_password: NewPassword


class PasswordChange(Body):
    """A new password, by who knows the old one."""

    current_password: Password
    new_password: NewPassword


class EmailChange(Body):
    """Another address."""

    email: Address
    password: Password


class Tokens(BaseModel):
    """What a client sends from now on. With cookies the tokens are in them and not here."""

    access_token: str | None = Field(None, description="For the Authorization header.")
    refresh_token: str | None = Field(None, description="Good for one refresh, which brings the next one.")
    token_type: Literal["bearer"] = "bearer"  # noqa: S105
    expires_in: int = Field(description="Seconds until the access token expires.", examples=[600])


class Challenge(BaseModel):
    """What is asked for beside the password, before somebody is signed in."""

    token: str = Field(description="Comes with the answer, within the time that it is good for.")
    expires_in: int = Field(description="Seconds until it is good for nothing.", examples=[300])
    methods: list[Literal["totp", "passkey", "recovery_code"]] = Field(description="Any one of them will do.")
    passkey_options: dict[str, Any] | None = Field(
        None, description="For navigator.credentials.get(), through parseRequestOptionsFromJSON()."
    )


class Told(BaseModel):
    """What happens next. It is the same whether there is such an account or not."""

    detail: str


class SessionRead(BaseModel):
    """A sign-in that lasts."""

    id: UUID
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    user_agent: str | None


class SessionItem(SessionRead):
    """A sign-in in the list, and whether it is the one that asks."""

    current: bool
