from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi import FastAPI

from app.kit.settings import forget
from app.modules.metrics.service import Metrics
from app.modules.metrics.storage import lifespan
from app.ports.storage.local import LocalStorage
from app.ports.storage.storage import ObjectNotFound, WrongContent


@pytest.fixture
async def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FastAPI]:
    monkeypatch.setenv("STORAGE_FOLDER", str(tmp_path))
    forget()
    service = FastAPI()
    service.state.storage, service.state.metrics = LocalStorage(), Metrics(service)
    async with lifespan(service):
        yield service
    forget()


async def content() -> AsyncIterator[bytes]:
    yield b"content"


async def test_operations_are_measured_and_work_as_before(measured: FastAPI) -> None:
    storage: LocalStorage = measured.state.storage

    def count(operation: str, error_type: str = "") -> float | None:
        labels = {"provider": "local", "operation": operation, "error_type": error_type}
        found: float | None = measured.state.metrics.registry.get_sample_value(
            "storage_operation_duration_seconds_count", labels
        )
        return found

    stored = await storage.write("tests/one", content(), content_type="text/plain")
    assert (stored.size, count("write")) == (7, 1)
    async with storage.open("tests/one") as chunks:
        assert b"".join([chunk async for chunk in chunks]) == b"content"
    assert count("open") == 1
    with pytest.raises(ObjectNotFound):
        async with storage.open("tests/none"):
            pass
    assert (count("open"), count("open", "ObjectNotFound")) == (1, 1)
    # What goes wrong for who reads is no failure of the storage.
    with pytest.raises(ZeroDivisionError):
        async with storage.open("tests/one"):
            raise ZeroDivisionError
    assert (count("open"), count("open", "ZeroDivisionError")) == (2, None)
    minute = timedelta(minutes=1)
    await storage.upload("tests/two", size=1, content_type="text/plain", sha256=None, expires=minute)
    await storage.download_url("tests/one", name="one", content_type="text/plain", inline=False, expires=minute)
    assert await storage.stat("tests/none") is None
    await storage.delete("tests/one")
    # `write` and `open` ask for what is there as well.
    assert [count(operation) for operation in ("upload", "download_url", "stat", "delete")] == [1, 1, 2, 1]
    # What clients upload comes this way.
    await storage.take("tests/three", content(), content_type="text/plain", size=7)
    with pytest.raises(WrongContent):
        await storage.take("tests/four", content(), content_type="text/plain", size=6)
    assert (count("take"), count("take", "WrongContent")) == (2, 1)


async def test_the_storage_of_the_service_is_measured(app: FastAPI) -> None:
    assert type(app.state.storage).__name__.endswith("Storage")
    found = app.state.metrics.registry.collect()
    assert "storage_operation_duration_seconds" in {family.name for family in found}
