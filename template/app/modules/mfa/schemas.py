"""What goes over the wire about the second factor."""

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field, model_validator

from app.kit.schemas import Body, Line
from app.modules.accounts.schemas import Password


def plain(code: str) -> str:
    """Leave out what people put between the characters of a code."""
    return code.replace(" ", "").replace("-", "").lower()


Code = Annotated[
    str,
    Field(min_length=6, max_length=20, pattern="^[A-Za-z0-9 -]+$", examples=["123456"]),
    AfterValidator(plain),
]
ChallengeToken = Annotated[str, Field(min_length=1, max_length=200, description="The one that came with the question.")]
Credential = Annotated[
    dict[str, Any], Field(description="What navigator.credentials gave, through toJSON().", examples=[{"id": "..."}])
]


Cookies = Annotated[
    bool, Field(description="For pages in a browser: keep the tokens in cookies that scripts cannot read.")
]


class PasskeyAnswer(Body):
    """A passkey, by who signs in with nothing else."""

    token: ChallengeToken
    passkey: Credential
    cookies: Cookies = False


class FactorAnswer(Body):
    """A code or a passkey, by who was asked for one of them."""

    token: ChallengeToken
    code: Code | None = Field(None, description="Of the application, or one of the recovery codes.")
    passkey: Credential | None = None
    cookies: Cookies = False

    @model_validator(mode="after")
    def is_one(self) -> Self:
        """Accept either, and not both."""
        if (self.code is None) == (self.passkey is None):
            raise ValueError("send either code or passkey")
        return self


class Confirmation(Body):
    """The password, by who changes how an account is opened."""

    password: Password


class CodeShown(Body):
    """A code of the application that is being set up."""

    code: Code


class PasskeyCreate(Body):
    """A passkey to add."""

    token: ChallengeToken
    passkey: Credential
    name: Line = Field(examples=["Laptop"])


class PasskeyQuestion(BaseModel):
    """What an authenticator is asked."""

    token: str
    expires_in: int = Field(description="Seconds until it is good for nothing.", examples=[300])
    options: dict[str, Any] = Field(
        description="For navigator.credentials, through parseCreationOptionsFromJSON or parseRequestOptionsFromJSON."
    )


class TotpCreated(BaseModel):
    """What an application needs to show codes. It is shown once."""

    secret: str = Field(description="In Base32, to be typed in.")
    uri: str = Field(description="The same as otpauth://, for a QR code that your page draws.")


class RecoveryCodes(BaseModel):
    """Codes for who has lost the rest, each good once. They are shown once."""

    recovery_codes: list[str]


class FactorAdded(BaseModel):
    """What comes with a new factor."""

    recovery_codes: list[str] | None = Field(description="With the first factor. They are shown once.")


class PasskeyRead(BaseModel):
    """A passkey, as its owner sees it."""

    id: UUID
    name: str
    created_at: datetime
    last_used_at: datetime | None


class SecondFactor(BaseModel):
    """What an account asks for beside the password."""

    required: bool = Field(description="Whether the caller is an admin only with one.")
    totp: bool
    passkeys: list[PasskeyRead]
    recovery_codes_left: int
