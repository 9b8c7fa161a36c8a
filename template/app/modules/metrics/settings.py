"""Settings of metrics."""

import re

from pydantic import Field, SecretStr, field_validator, model_validator

from app.kit.settings import MINIMUM_SECRET_LENGTH, CoreSettings, ModuleSettings, SettingsError, load


class MetricsSettings(ModuleSettings):
    """Metrics."""

    metrics_token: SecretStr | None = Field(
        None,
        description="The bearer token that scrapes show. Production needs one.",
        json_schema_extra={"generated": True},
    )
    metrics_seconds: float = Field(
        10, ge=0, le=300, description="How long what was read from the database is told again before it is read anew."
    )

    @field_validator("metrics_token")
    @classmethod
    def can_be_sent(cls, value: SecretStr | None) -> SecretStr | None:
        """Refuse what no header can hold (RFC 6750, 2.1), and what is short."""
        token = value.get_secret_value() if value else ""
        if value and (len(token) < MINIMUM_SECRET_LENGTH or not re.fullmatch("[A-Za-z0-9._~+/-]+=*", token)):
            raise ValueError(f"needs at least {MINIMUM_SECRET_LENGTH} characters of A-Z, a-z, 0-9 and ._~+/-")
        return value

    @model_validator(mode="after")
    def guard_production(self) -> "MetricsSettings":
        """Refuse in production to tell anyone who asks."""
        try:
            production = load(CoreSettings).production
        except SettingsError:
            return self  # What is wrong there is told there.
        if production and self.metrics_token is None:
            raise ValueError("METRICS_TOKEN: production needs one, or anyone could read the metrics.")
        return self
