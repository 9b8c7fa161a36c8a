"""Settings of API keys."""

from limits import RateLimitItem, parse
from pydantic import Field, model_validator

from app.kit.settings import ModuleSettings
from app.modules.api_keys.keys import PREFIX


class ApiKeySettings(ModuleSettings):
    """API keys."""

    api_key_prefix: str = Field(
        "apikey", pattern=f"^{PREFIX}$", description="How new keys begin, so that a scanner of secrets finds yours."
    )
    api_key_days: int = Field(90, ge=1, le=3650, description="How long a key is good when its owner does not say.")
    api_key_most_days: int = Field(365, ge=1, le=3650, description="The longest that an owner may say.")
    api_keys_per_user: int = Field(50, ge=1, le=1000, description="Keys that one user may have at a time.")

    api_key_limit_wrong: str = Field(
        "100/hour",
        pattern="^[1-9][0-9]{0,8}/(second|minute|hour|day)$",
        description="Wrong keys from one address that are answered with a 401, and then with a 429.",
    )

    @property
    def wrong_limit(self) -> RateLimitItem:
        """How often one address may come with a wrong key."""
        return parse(self.api_key_limit_wrong)

    @model_validator(mode="after")
    def guard(self) -> "ApiKeySettings":
        """Refuse a usual time that is longer than the longest."""
        if self.api_key_days > self.api_key_most_days:
            raise ValueError("API_KEY_DAYS: is at most API_KEY_MOST_DAYS.")
        return self
