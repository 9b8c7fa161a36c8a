"""Settings of what users may have of their data."""

from pydantic import Field

from app.kit.settings import ModuleSettings


class PrivacySettings(ModuleSettings):
    """What users may have of their data."""

    privacy_export_hours: int = Field(72, ge=1, le=720, description="How long an export can be fetched.")
    privacy_export_most_bytes: int = Field(
        10_000_000, ge=10_000, le=100_000_000, description="The largest export that is kept."
    )
