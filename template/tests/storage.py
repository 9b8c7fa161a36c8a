"""A folder of the test, in place of the one where the service keeps what it stores."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from app.kit.settings import forget
from app.ports.storage.local import LocalStorage


@pytest.fixture
def storage(app: FastAPI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalStorage]:
    monkeypatch.setenv("STORAGE_FOLDER", str(tmp_path / "files"))
    forget()
    before, app.state.storage = app.state.storage, LocalStorage()
    yield app.state.storage
    app.state.storage = before
    monkeypatch.undo()
    forget()
