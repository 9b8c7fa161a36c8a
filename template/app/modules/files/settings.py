"""Settings of files."""

from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from app.kit.settings import ModuleSettings
from app.modules.files.kinds import KINDS
from app.ports.storage.storage import check_type


class FileSettings(ModuleSettings):
    """Files of users."""

    files_max_bytes: int = Field(
        104_857_600, ge=1, le=5_368_709_120, description="The largest file; 5 GiB is what S3 takes at once."
    )
    files_quota_bytes: int = Field(1_073_741_824, ge=1, description="How much one user may keep.")
    files_most: int = Field(10_000, ge=1, description="How many files one user may keep, also empty ones.")
    files_pending_most: int = Field(20, ge=1, le=10_000, description="Uploads that one user may have begun at a time.")
    files_types: Annotated[list[str], NoDecode] = Field(
        list(KINDS), description="Types that may be uploaded, separated by commas. Others than these are not verified."
    )
    files_link_seconds: int = Field(
        900, ge=30, le=3600, description="How long the link of an upload or a download is good."
    )
    files_unconfirmed_hours: int = Field(
        6, ge=2, le=720, description="After so long an upload that nobody confirms is removed."
    )
    files_orphan_days: int = Field(
        7, ge=1, le=365, description="After so long an object that no file is known of is removed."
    )
    files_keep_deleted_days: int = Field(30, ge=1, description="How long the rows of deleted files are kept.")

    @field_validator("files_types", mode="before")
    @classmethod
    def split(cls, value: str | list[str]) -> list[str]:
        """Accept the comma-separated form that an environment variable has."""
        types = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        for one in types:
            try:
                check_type(one)
            except ValueError as error:
                raise ValueError(f"{one} {error}") from None
        return types
