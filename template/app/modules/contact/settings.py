"""Settings of the contact form."""

import re
from typing import Annotated

from limits import RateLimitItem, parse
from pydantic import Field, field_validator, model_validator
from pydantic_settings import NoDecode

from app.kit.settings import ModuleSettings
from app.kit.signing import SigningSecret
from app.ports.email.message import EmailAddress
from app.ports.outgoing.settings import WebhookURL
from app.ports.outgoing.webhook import Receiver

LIMIT = "^[1-9][0-9]{0,8}/(second|minute|hour|day)$"
OWN_FIELDS = ("name", "email", "subject", "message")
TAKEN = {*OWN_FIELDS, "stamp"}
MOST_FIELDS, LONGEST_FIELD = 20, 1000
_is_name = re.compile(r"[a-z][a-z0-9_]{0,39}").fullmatch
_field = re.compile(r"([a-z][a-z0-9_]{0,39}):([0-9]{1,4})").fullmatch


class ContactSettings(ModuleSettings):
    """The contact form."""

    contact_to: EmailAddress | None = Field(None, description="Who gets a mail for each message. Empty: nobody.")
    contact_fields: Annotated[list[str], NoDecode] = Field(
        [], description="More fields, with the most characters of each, such as company:100,phone:30."
    )
    contact_required: Annotated[list[str], NoDecode] = Field(
        ["name", "email", "message"], description="Fields that nobody may leave empty, separated by commas."
    )
    contact_message_length: int = Field(5000, ge=100, le=100_000, description="The most characters of a message.")
    contact_honeypot: str = Field("website", description="A field that people do not see, and that bots fill in.")
    contact_minimum_seconds: int = Field(3, ge=0, le=600, description="Who sends the form sooner is no person.")
    contact_form_hours: int = Field(24, ge=1, le=168, description="How long a form that was loaded may be sent.")
    contact_limit_client: str = Field("10/hour", pattern=LIMIT, description="Messages from one address of a network.")
    contact_limit_email: str = Field("5/day", pattern=LIMIT, description="Messages that give one e-mail address.")
    contact_confirm: bool = Field(True, description="Whether senders get a mail that says that their message is there.")
    contact_limit_confirm: str = Field("100/hour", pattern=LIMIT, description="Such mails of the whole service.")
    contact_keep_days: int = Field(365, ge=1, le=36_500, description="After so long messages are deleted.")
    contact_webhook_url: WebhookURL | None = Field(None, description="Who else is told of each message, by a webhook.")
    contact_webhook_secret: SigningSecret | None = Field(None, description="What the webhook is signed with, whsec_...")

    @field_validator("contact_fields", "contact_required", mode="before")
    @classmethod
    def split(cls, value: str | list[str]) -> list[str]:
        """Read what is separated by commas."""
        parts = value.split(",") if isinstance(value, str) else value
        return list(dict.fromkeys(part.strip() for part in parts if part.strip()))

    @field_validator("contact_fields")
    @classmethod
    def check_fields(cls, value: list[str]) -> list[str]:
        """Accept names with lengths, each once."""
        if len(value) > MOST_FIELDS:
            raise ValueError(f"names {len(value)} fields; there may be {MOST_FIELDS}")
        for part in value:
            if not (found := _field(part)) or not 1 <= int(found[2]) <= LONGEST_FIELD:
                raise ValueError(
                    f"{part[:60]!r} is no field: write a name of a-z, 0-9 and _, a colon, and the most characters, "
                    f"up to {LONGEST_FIELD}, such as company:100"
                )
        names = [part.partition(":")[0] for part in value]
        if doubled := [name for name in names if name in TAKEN or names.count(name) > 1]:
            raise ValueError(f"there is a field {doubled[0]} already; take another name")
        return value

    @model_validator(mode="after")
    def check_together(self) -> "ContactSettings":
        """Refuse what does not fit together."""
        fields = [*OWN_FIELDS, *self.more_fields]
        found = [
            f"CONTACT_REQUIRED: the form has no field {name[:60]!r}; it has {', '.join(fields)}."
            for name in self.contact_required
            if name not in fields
        ]
        if "message" not in self.contact_required:
            found.append("CONTACT_REQUIRED: message belongs to it, or there is nothing to read.")
        if not _is_name(self.contact_honeypot) or self.contact_honeypot in {*fields, *TAKEN}:
            found.append("CONTACT_HONEYPOT: needs a name of a-z, 0-9 and _ that no other field has.")
        if (self.contact_webhook_url is None) != (self.contact_webhook_secret is None):
            found.append("CONTACT_WEBHOOK_URL and CONTACT_WEBHOOK_SECRET go together: set both or neither.")
        if found:
            raise ValueError("\n".join(found))
        return self

    @property
    def more_fields(self) -> dict[str, int]:
        """The fields beside those that every form has, with their lengths."""
        return {name: int(length) for name, length in (part.split(":") for part in self.contact_fields)}

    @property
    def receiver(self) -> Receiver | None:
        """Who is told by a webhook."""
        if self.contact_webhook_url is None or self.contact_webhook_secret is None:
            return None
        return Receiver(self.contact_webhook_url, self.contact_webhook_secret)

    @property
    def limits(self) -> dict[str, RateLimitItem]:
        """How often somebody may send, by what is counted."""
        named = {"client": self.contact_limit_client, "email": self.contact_limit_email}
        return {name: parse(limit) for name, limit in (named | {"confirm": self.contact_limit_confirm}).items()}
