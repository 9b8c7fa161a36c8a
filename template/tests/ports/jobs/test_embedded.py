"""The embedded engine: jobs are found in the database itself."""

import pytest

from app.ports.jobs.engine import EmbeddedEngine
from tests.ports.jobs.contract import EngineContract, Make


class TestEmbedded(EngineContract):
    @pytest.fixture
    def make(self) -> Make:
        return EmbeddedEngine

    @pytest.fixture
    def environment(self) -> dict[str, str]:
        return {"JOBS_ENGINE": "embedded"}
