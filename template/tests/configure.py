"""Settings of one test are no settings of the next."""

from collections.abc import Callable, Iterator

import pytest

from app.kit.settings import forget


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Set settings by their names, in lower case."""

    def put(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name.upper(), value)
        forget()

    put()
    yield put
    forget()
