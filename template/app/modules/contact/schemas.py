"""What goes over the wire about the contact form."""

from datetime import datetime
from itertools import islice
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.modules.contact.form import MOST_TOLD, Kind
from app.modules.contact.settings import MOST_FIELDS, TAKEN

# More than any form has; of what is too much, as many are looked at as are told of.
MOST_GIVEN = MOST_FIELDS + len(TAKEN) + MOST_TOLD


class ContactForm(BaseModel):
    """A form that was filled in. The fields that it has, and how long they may be, its status tells."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, str] = Field(init=False)

    stamp: str = Field(description="The one that came with the form.")
    name: str | None = Field(None, examples=["Ada Lovelace"])
    email: str | None = Field(None, examples=["ada@example.com"])
    subject: str | None = Field(None, examples=["Analytical Engine"])
    message: str | None = Field(None, examples=["When will it be ready?"])

    @model_validator(mode="before")
    @classmethod
    def bound(cls, given: Any) -> Any:
        """Look at so many fields at most: each one that is wrong is an error, and a body can hold 100,000."""
        if isinstance(given, dict) and len(given) > MOST_GIVEN:
            own = given.keys() & cls.model_fields.keys()
            given = {name: given[name] for name in [*own, *islice((it for it in given if it not in own), MOST_GIVEN)]}
        return given

    def given(self) -> dict[str, str]:
        """Return all fields but the stamp."""
        return self.model_dump(exclude={"stamp"}, exclude_none=True)


class FieldRead(BaseModel):
    """A field of the form."""

    name: str = Field(examples=["company"])
    kind: Kind = Field(description="line, email, or text with more lines than one.")
    required: bool
    max_length: int


class FormRead(BaseModel):
    """A form to fill in."""

    fields: list[FieldRead]
    honeypot: str = Field(description="One more field, which people do not see and leave empty.", examples=["website"])
    stamp: str = Field(description="To be sent along; good for one message.")
    minimum_seconds: int = Field(description="How long it takes at least to fill the form in.")
    expires_at: datetime


class ContactReceipt(BaseModel):
    """The answer to every message."""

    detail: str = Field(examples=["Thank you. We have your message."])
