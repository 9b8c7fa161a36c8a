"""S3 of AWS, and servers that speak its API, such as MinIO."""

from pydantic import Field, SecretStr, model_validator

from app.kit.module import Module
from app.kit.settings import ModuleSettings, load
from app.ports.storage.s3_api import Bucket, S3ApiStorage, guard_endpoint


class S3Settings(ModuleSettings):
    """Files in a bucket of S3."""

    s3_bucket: str | None = Field(None, description="The bucket. It is this service's own.")
    s3_region: str = Field("us-east-1", description="The region of the bucket.")
    s3_endpoint_url: str | None = Field(
        None, description="A server that speaks the API of S3, such as http://localhost:9000. Empty: AWS."
    )
    s3_public_url: str | None = Field(None, description="Where clients reach that server, if under another address.")
    s3_path_style: bool | None = Field(
        None, description="Write the bucket into paths, not host names. Default: with S3_ENDPOINT_URL."
    )
    s3_access_key_id: str | None = Field(
        None, description="Whose keys. Empty: what AWS finds by itself, such as the role of the machine."
    )
    s3_secret_access_key: SecretStr | None = Field(None, description="The secret that goes with it.")

    @model_validator(mode="after")
    def guard(self) -> "S3Settings":
        """Refuse half of a pair of keys, and a way that others could read."""
        if (self.s3_access_key_id is None) != (self.s3_secret_access_key is None):
            raise ValueError("S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY go together: set both or none.")
        guard_endpoint("S3_ENDPOINT_URL", self.s3_endpoint_url)
        guard_endpoint("S3_PUBLIC_URL", self.s3_public_url)
        return self


class S3Storage(S3ApiStorage):
    """Keeps objects in a bucket of S3."""

    def __init__(self) -> None:
        settings = load(S3Settings)
        path_style = settings.s3_path_style
        super().__init__(
            Bucket(
                name=settings.s3_bucket or "",
                region=settings.s3_region,
                endpoint=settings.s3_endpoint_url,
                public=settings.s3_public_url,
                path_style=bool(settings.s3_endpoint_url) if path_style is None else path_style,
                key_id=settings.s3_access_key_id,
                secret=settings.s3_secret_access_key,
            )
        )

    @classmethod
    def problems(cls) -> list[str]:
        """Without a bucket there is nowhere to put anything."""
        return [] if load(S3Settings).s3_bucket else ["S3_BUCKET: s3 needs the name of a bucket."]


s3 = Module(name="s3", settings=(S3Settings,))
