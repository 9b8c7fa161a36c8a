"""R2 of Cloudflare, which speaks the API of S3."""

from typing import Literal

from pydantic import Field, SecretStr

from app.kit.module import Module
from app.kit.settings import ModuleSettings, load
from app.ports.storage.s3_api import Bucket, S3ApiStorage

NEEDED = {
    "r2_account_id": "the id of the account, which the dashboard shows",
    "r2_bucket": "the name of a bucket",
    "r2_access_key_id": "the id of an R2 API token that may read and write objects",
    "r2_secret_access_key": "the secret that goes with R2_ACCESS_KEY_ID",
}


class R2Settings(ModuleSettings):
    """Files in a bucket of Cloudflare R2."""

    r2_account_id: str | None = Field(
        None, pattern=r"^[0-9a-f]{32}$", description="The id of the account, of 32 letters and digits."
    )
    r2_bucket: str | None = Field(None, description="The bucket. It is this service's own.")
    r2_access_key_id: str | None = Field(None, description="The id of an R2 API token for this bucket.")
    r2_secret_access_key: SecretStr | None = Field(None, description="The secret that goes with it.")
    r2_jurisdiction: Literal["default", "eu", "fedramp"] = Field(
        "default", description="default, or eu or fedramp for a bucket that was made there."
    )


class R2Storage(S3ApiStorage):
    """Keeps objects in a bucket of R2."""

    def __init__(self, *, url: str | None = None) -> None:
        settings = load(R2Settings)
        where = "" if settings.r2_jurisdiction == "default" else f".{settings.r2_jurisdiction}"
        super().__init__(
            Bucket(
                name=settings.r2_bucket or "",
                region="auto",
                endpoint=url or f"https://{settings.r2_account_id}{where}.r2.cloudflarestorage.com",
                path_style=True,
                key_id=settings.r2_access_key_id,
                secret=settings.r2_secret_access_key,
            )
        )

    @classmethod
    def problems(cls) -> list[str]:
        """All four are needed: no machine of Cloudflare has a role."""
        settings = load(R2Settings)
        return [f"{name.upper()}: r2 needs {what}." for name, what in NEEDED.items() if not getattr(settings, name)]


r2 = Module(name="r2", settings=(R2Settings,))
