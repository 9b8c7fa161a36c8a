"""The end of deleted projects, as a part of the service."""

from app.kit.module import Module
from app.modules.projects_retention import tasks  # noqa: F401
from app.modules.projects_retention.settings import ProjectRetentionSettings

projects_retention = Module(name="projects_retention", settings=[ProjectRetentionSettings])
