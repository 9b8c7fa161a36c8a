import logging
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from app.kit.settings import SettingsError, load
from app.ports.storage.s3 import S3Settings, S3Storage
from app.ports.storage.settings import StorageSettings, open_storage
from app.ports.storage.storage import StorageUnavailable
from tests.ports.storage.contract import PNG, QUARTER
from tests.ports.storage.s3_server import KEY_ID, SECRET, S3Contract, bucket, s3_client, s3_server

__all__ = ["bucket", "s3_client", "s3_server"]
AWAY = "http://127.0.0.1:9"


@pytest.fixture
async def storage(s3_server: str, bucket: tuple[Any, str], configure: Callable[..., None]) -> AsyncIterator[S3Storage]:
    configure(s3_endpoint_url=s3_server, s3_bucket=bucket[1], s3_access_key_id=KEY_ID, s3_secret_access_key=SECRET)
    storage = S3Storage()
    yield storage
    await storage.close()


class TestS3(S3Contract):
    pass


async def test_the_setting_picks_it(storage: S3Storage, configure: Callable[..., None]) -> None:
    configure(storage_provider="s3")
    assert isinstance(open_storage(load(StorageSettings)), S3Storage)


async def test_clients_may_reach_it_elsewhere(storage: S3Storage, configure: Callable[..., None]) -> None:
    configure(s3_public_url="https://files.example.com")
    other = S3Storage()
    assert await other.stat("a/b") is None
    upload = await other.upload("a/b", size=1, content_type=PNG, sha256=None, expires=QUARTER)
    assert upload.url.startswith(f"https://files.example.com/{storage.bucket.name}/a/b?")
    await other.close()


async def test_aws_has_the_bucket_in_the_name_of_the_host(configure: Callable[..., None]) -> None:
    configure(s3_bucket="mine", s3_region="eu-central-1", s3_access_key_id=KEY_ID, s3_secret_access_key=SECRET)
    storage = S3Storage()
    upload = await storage.upload("a/b", size=1, content_type=PNG, sha256=None, expires=QUARTER)
    assert upload.url.startswith("https://mine.s3.eu-central-1.amazonaws.com/a/b?")
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in upload.url
    await storage.close()


async def test_keys_are_found_where_aws_has_them(
    storage: S3Storage, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("S3_ACCESS_KEY_ID")
    monkeypatch.delenv("S3_SECRET_ACCESS_KEY")
    configure(aws_access_key_id="AKIAOTHER", aws_secret_access_key="x", aws_session_token="a-session")
    other = S3Storage()
    url = await other.download_url("a/b", name="x", content_type=PNG, inline=False, expires=QUARTER)
    assert "AKIAOTHER" in url
    assert "X-Amz-Security-Token=a-session" in url
    await other.close()


async def test_without_keys_the_check_says_so(
    storage: S3Storage, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("S3_ACCESS_KEY_ID")
    monkeypatch.delenv("S3_SECRET_ACCESS_KEY")
    configure(aws_ec2_metadata_disabled="true", aws_shared_credentials_file="/nowhere", aws_config_file="/nowhere")
    other = S3Storage()
    with pytest.raises(StorageUnavailable, match="no credentials"):
        await other.check()
    await other.close()


async def test_another_region_is_told(storage: S3Storage, configure: Callable[..., None]) -> None:
    configure(s3_region="eu-west-1")
    other = S3Storage()
    with pytest.raises(StorageUnavailable, match="in the region us-east-1, not in eu-west-1"):
        await other.check()
    await other.close()


async def test_away_is_a_sentence_without_an_address(
    storage: S3Storage, configure: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    configure(s3_endpoint_url=AWAY)
    away = S3Storage()
    with pytest.raises(StorageUnavailable) as caught:
        await away.stat("files/secret-key")
    with pytest.raises(StorageUnavailable, match="does not answer") as checked:
        await away.check()
    assert (caught.value.__cause__, checked.value.__cause__) == (None, None)  # Doctors and logs tell of causes.
    told = str(caught.value) + capsys.readouterr().out
    assert "EndpointConnectionError" in told
    for secret in (AWAY, "127.0.0.1", "secret-key", KEY_ID, SECRET):
        assert secret not in told
    await away.close()


async def test_who_is_silent_is_not_waited_for(storage: S3Storage, configure: Callable[..., None]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        configure(s3_endpoint_url=f"http://127.0.0.1:{server.getsockname()[1]}")
        silent = S3Storage()
        with pytest.raises(StorageUnavailable, match="ReadTimeoutError"):
            await silent.check()
        await silent.close()


async def test_no_key_is_logged_at_any_level(
    storage: S3Storage, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await storage.upload("a/b", size=1, content_type=PNG, sha256=None, expires=QUARTER)
    await storage.stat("a/b")
    told = caplog.text + capsys.readouterr().out
    assert SECRET not in told
    assert "Signature" not in told


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"s3_access_key_id": "A"}, "go together"),
        ({"s3_endpoint_url": "minio:9000"}, "S3_ENDPOINT_URL: write scheme"),
        ({"s3_endpoint_url": "https://s3.example.com/bucket"}, "without the bucket"),
        ({"s3_endpoint_url": "https://user:pass@s3.example.com"}, "S3_ENDPOINT_URL: write scheme"),
        ({"s3_endpoint_url": "http://s3.example.com"}, "S3_ENDPOINT_URL: production needs https"),
        ({"s3_public_url": "http://192.168.1.7:9000"}, "S3_PUBLIC_URL: production needs https"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(
    configure: Callable[..., None], values: dict[str, str], sentence: str
) -> None:
    configure(environment="production", secret_key="Vw3kX9-zq_7TfP2mLr8HsJ4nB6cYd1gE0aUoKtQi5RxW", **values)
    with pytest.raises(SettingsError, match=sentence) as caught:
        load(S3Settings)
    assert "pass@" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://minio:9000", "http://localhost:9000", "https://s3.example.com"])
def test_a_server_beside_it_needs_no_https(configure: Callable[..., None], url: str) -> None:
    configure(environment="production", secret_key="Vw3kX9-zq_7TfP2mLr8HsJ4nB6cYd1gE0aUoKtQi5RxW", s3_endpoint_url=url)
    assert load(S3Settings).s3_endpoint_url == url


def test_a_provider_without_a_bucket_is_refused(configure: Callable[..., None]) -> None:
    configure(storage_provider="s3")
    with pytest.raises(SettingsError, match="S3_BUCKET: s3 needs the name of a bucket"):
        load(StorageSettings)
