"""How long deleted projects are kept."""

from pydantic import Field

from app.kit.settings import ModuleSettings


class ProjectRetentionSettings(ModuleSettings):
    """Deleted projects."""

    projects_keep_deleted_days: int = Field(
        30, ge=1, le=36_500, description="How long the rows of deleted projects are kept."
    )
