from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI

from app.ports.pubsub.memory import MemoryPubSub
from tests.ports.pubsub.contract import Open, Process, PubSubContract


class TestMemory(PubSubContract):
    @pytest.fixture
    def opened(self) -> Open:
        @asynccontextmanager
        async def open() -> AsyncIterator[Process]:
            received: list[bytes] = []
            pubsub = MemoryPubSub.make(FastAPI(), "topic", received.append, lambda: None)
            await pubsub.open()
            yield Process(pubsub, received, [])
            await pubsub.close()
            assert pubsub.places in ({}, {"room": {"eve": None}})

        return open
