"""Which storage keeps the service's files."""

from pydantic import Field, field_validator, model_validator

from app.kit.settings import ModuleSettings, SettingsError
from app.ports.storage.adapters import STORAGES
from app.ports.storage.storage import Storage


class StorageSettings(ModuleSettings):
    """Storage of files."""

    storage_provider: str = Field(
        "local", description=f"What keeps files: {', '.join(STORAGES)}. local is the disk of this machine."
    )

    @field_validator("storage_provider")
    @classmethod
    def is_there(cls, value: str) -> str:
        """Refuse what this service has no adapter for."""
        if value not in STORAGES:
            raise ValueError(f"is none of {', '.join(STORAGES)}")
        return value

    @model_validator(mode="after")
    def guard_provider(self) -> "StorageSettings":
        """Refuse a provider without its settings."""
        try:
            found = STORAGES[self.storage_provider].problems()
        except SettingsError:
            return self  # What is wrong there is told there.
        if found:
            raise ValueError("\n".join(found))
        return self


def open_storage(settings: StorageSettings) -> Storage:
    """Make the storage that the settings name."""
    return STORAGES[settings.storage_provider]()
