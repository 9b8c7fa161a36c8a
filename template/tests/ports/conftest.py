"""A provider of identity on this machine, and verifiers of its tokens."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from app.kit.settings import ModuleSettings, SettingsError, forget, load
from app.ports.identity.provider import ProviderVerifier
from tests.provider import Provider


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


@pytest.fixture
async def make(provider: Provider) -> AsyncIterator[Callable[..., ProviderVerifier]]:
    made: list[ProviderVerifier] = []

    def verifier(**settings: Any) -> ProviderVerifier:
        made.append(provider.new_verifier(**settings))
        return made[-1]

    yield verifier
    for one in made:
        await one.keys.close()


@pytest.fixture
def verifier(make: Callable[..., ProviderVerifier]) -> ProviderVerifier:
    return make()


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Tell why settings are refused that an environment gives; it is empty when they are not."""

    def refused(settings: type[ModuleSettings], environment: dict[str, str]) -> str:
        for name, value in {"SECRET_KEY": "a secret of these tests alone, and of no service", **environment}.items():
            monkeypatch.setenv(name, value)
        forget()
        try:
            load(settings)
        except SettingsError as error:
            return str(error)
        return ""

    yield refused
    forget()
