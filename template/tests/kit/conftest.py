"""Production needs settings of the provider of identity; these tests never talk to it."""

import pytest

from tests.provider import Provider


@pytest.fixture(autouse=True)
def provider(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in Provider.PRODUCTION.items():
        monkeypatch.setenv(name, value)
