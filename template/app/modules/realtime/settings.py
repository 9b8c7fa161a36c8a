"""Settings of realtime."""

from typing import Annotated

from pydantic import Field, field_validator, model_validator
from pydantic_settings import NoDecode

from app.kit.settings import CoreSettings, ModuleSettings, SettingsError, load


class RealtimeSettings(ModuleSettings):
    """Realtime."""

    realtime_origins: Annotated[list[str], NoDecode] = Field(
        [], description="Origins whose pages may connect beside those of CORS_ORIGINS, separated by commas."
    )
    realtime_token_in_url: bool = Field(
        True, description="Take access tokens in ?token= as well. Tickets are better: they are good once."
    )
    realtime_ticket_seconds: int = Field(30, ge=5, le=300, description="How long a ticket is good.")
    realtime_check_seconds: float = Field(
        30, ge=1, le=600, description="How often it is looked who may still be connected, and in which rooms."
    )
    realtime_ping_seconds: float = Field(
        20, ge=0.5, le=300, description="How often a client is pinged; as long again it has to answer."
    )
    realtime_connections: int = Field(5000, ge=1, description="Connections that a process has at most.")
    realtime_connections_per_user: int = Field(20, ge=1, description="Those of one user.")
    realtime_rooms: int = Field(50, ge=1, le=1000, description="Rooms that a connection is in at most.")
    realtime_messages_per_second: float = Field(
        10, gt=0, le=1000, description="What a client may send; four seconds' worth of it at once."
    )
    realtime_message_bytes: int = Field(16_384, ge=256, le=1_048_576, description="The largest message of a client.")
    realtime_queue: int = Field(
        100, ge=1, le=10_000, description="Messages that wait for a slow client before it is dropped."
    )

    @field_validator("realtime_origins", mode="before")
    @classmethod
    def split(cls, value: str | list[str]) -> list[str]:
        """Accept what CORS_ORIGINS accepts."""
        return CoreSettings.split(value)

    @model_validator(mode="after")
    def guard_production(self) -> "RealtimeSettings":
        """Refuse in production that any page connects."""
        try:
            production = load(CoreSettings).production
        except SettingsError:
            return self  # What is wrong there is told there.
        if production and "*" in self.realtime_origins:
            raise ValueError("REALTIME_ORIGINS: * lets any page connect; list the origins.")
        return self
