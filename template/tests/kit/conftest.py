"""Production needs a provider of identity; these tests never talk to it."""

import pytest


@pytest.fixture(autouse=True)
def provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OIDC_ISSUER", "https://identity.example.com")
    monkeypatch.setenv("OIDC_AUDIENCE", "service")
