"""Settings of the daily report."""

from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator

from app.kit.settings import ModuleSettings
from app.ports.email.message import EmailAddress


class ReportSettings(ModuleSettings):
    """The daily report."""

    report_enabled: bool = Field(True, description="Mail active admins once a day what has happened, in numbers.")
    report_to: EmailAddress | None = Field(None, description="Who gets it in place of the admins.")
    report_hour: int = Field(7, ge=0, le=23, description="The hour from which on it is sent.")
    report_zone: str = Field("UTC", description="The time zone of that hour, such as Europe/Berlin.")

    @field_validator("report_zone")
    @classmethod
    def is_there(cls, value: str) -> str:
        """Refuse what is no time zone."""
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("is no time zone; one looks like Europe/Berlin") from None
        return value

    def local(self, moment: datetime) -> datetime:
        """Return a time by the clocks of the zone."""
        return moment.astimezone(ZoneInfo(self.report_zone))
