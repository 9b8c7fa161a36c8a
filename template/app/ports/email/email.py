"""The e-mail port: which provider sends the service's mails, and whom they come from."""

from pydantic import Field, field_validator, model_validator

from app.kit.schemas import Line
from app.kit.settings import CoreSettings, ModuleSettings, SettingsError, load
from app.ports.email.adapters import PROVIDERS, SERVICE
from app.ports.email.message import Email, EmailAddress, Mailbox

NOBODY = "noreply@example.com"


class EmailSettings(ModuleSettings):
    """E-mail."""

    email_provider: str = Field(
        "console", description=f"What sends mails: {', '.join(PROVIDERS)}. The console writes them to the terminal."
    )
    email_from: EmailAddress = Field(NOBODY, description="The address that mails come from.")
    email_from_name: Line | None = Field(None, description="The name beside it. Empty: the service's.")
    email_timeout_seconds: float = Field(10, gt=0, le=120, description="How long one attempt to send may take.")
    email_console_in_production: bool = Field(
        False, description="Let production write mails, and the links in them, to its output instead of sending them."
    )

    @field_validator("email_provider")
    @classmethod
    def is_there(cls, value: str) -> str:
        """Refuse what this service has no adapter for."""
        if value not in PROVIDERS:
            raise ValueError(f"is none of {', '.join(PROVIDERS)}")
        return value

    @model_validator(mode="after")
    def guard_sending(self) -> "EmailSettings":
        """Refuse a provider without its settings, and a production that would send nothing without saying so."""
        try:
            production = load(CoreSettings).production
            found = PROVIDERS[self.email_provider].problems()
        except SettingsError:
            return self  # What is wrong there is told there.
        if self.email_provider != "console":
            if self.email_from == NOBODY:
                found.append(f"EMAIL_FROM: {self.email_provider} needs an address of yours.")
        elif production and not self.email_console_in_production:
            others = " or ".join(name for name in PROVIDERS if name != "console")
            needed = others or "a provider of mails, which `copier update` adds"
            found.append(
                f"EMAIL_PROVIDER: the console sends nothing. Production needs {needed}, "
                "or EMAIL_CONSOLE_IN_PRODUCTION=true."
            )
        if found:
            raise ValueError("\n".join(found))
        return self

    @property
    def sender(self) -> Mailbox:
        """Whom mails come from."""
        return Mailbox(address=self.email_from, name=self.email_from_name or SERVICE or None)


def open_email(settings: EmailSettings) -> Email:
    """Make the provider that the settings name."""
    return PROVIDERS[settings.email_provider](settings.sender, timeout=settings.email_timeout_seconds)
