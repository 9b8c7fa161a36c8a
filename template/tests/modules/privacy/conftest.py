"""Exports of tests lie in a folder of the test."""

import pytest

from app.ports.storage.local import LocalStorage
from tests.storage import storage

__all__ = ["storage"]


@pytest.fixture(autouse=True)
def stored(storage: LocalStorage) -> None:
    """Store nothing elsewhere."""
