from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from app.kit.settings import SettingsError, load
from app.ports.storage.r2 import R2Settings, R2Storage
from app.ports.storage.settings import StorageSettings, open_storage
from tests.ports.storage.contract import PNG, QUARTER, SHA256
from tests.ports.storage.s3_server import KEY_ID, SECRET, S3Contract, bucket, s3_client, s3_server

__all__ = ["bucket", "s3_client", "s3_server"]
ACCOUNT = "0123456789abcdef0123456789abcdef"


@pytest.fixture
async def storage(s3_server: str, bucket: tuple[Any, str], configure: Callable[..., None]) -> AsyncIterator[R2Storage]:
    configure(r2_account_id=ACCOUNT, r2_bucket=bucket[1], r2_access_key_id=KEY_ID, r2_secret_access_key=SECRET)
    storage = R2Storage(url=s3_server)
    yield storage
    await storage.close()


class TestR2(S3Contract):
    pass


@pytest.mark.parametrize(("jurisdiction", "where"), [("default", ""), ("eu", ".eu"), ("fedramp", ".fedramp")])
async def test_links_lead_to_the_account(
    storage: R2Storage, configure: Callable[..., None], jurisdiction: str, where: str
) -> None:
    configure(storage_provider="r2", r2_jurisdiction=jurisdiction)
    real = open_storage(load(StorageSettings))
    upload = await real.upload("a/b", size=1, content_type=PNG, sha256=SHA256, expires=QUARTER)
    url = f"https://{ACCOUNT}{where}.r2.cloudflarestorage.com/{storage.bucket.name}/a/b?"
    assert upload.url.startswith(url)
    assert "%2Fauto%2Fs3%2Faws4_request" in upload.url
    # R2 has no POST with a policy.
    assert (upload.method, upload.fields) == ("PUT", {})
    await real.close()


def test_a_provider_without_its_settings_is_refused(configure: Callable[..., None]) -> None:
    configure(storage_provider="r2", r2_bucket="mine")
    with pytest.raises(SettingsError) as caught:
        load(StorageSettings)
    for name in ("R2_ACCOUNT_ID", "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY"):
        assert f"{name}: r2 needs" in str(caught.value)
    assert "R2_BUCKET" not in str(caught.value)


def test_an_account_is_no_address(configure: Callable[..., None]) -> None:
    configure(r2_account_id="evil.example.com/")
    with pytest.raises(SettingsError, match="R2_ACCOUNT_ID"):
        load(R2Settings)
