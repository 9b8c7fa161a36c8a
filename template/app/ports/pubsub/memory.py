"""Pub/sub within one process, which needs nothing else."""

from collections.abc import Callable, Iterable
from typing import Self

from fastapi import FastAPI

from app.ports.pubsub.pubsub import Receive


class MemoryPubSub:
    """Tells this process, and keeps in memory who is present."""

    reach = "this process"

    def __init__(self, receive: Receive) -> None:
        self.receive = receive
        self.places: dict[str, dict[str, None]] = {}

    @classmethod
    def make(cls, app: FastAPI, topic: str, receive: Receive, missed: Callable[[], None]) -> Self:
        """Return one: it lacks nothing."""
        return cls(receive)

    async def open(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""

    def publish(self, message: bytes) -> None:
        """Tell this process."""
        self.receive(message)

    async def enter(self, place: str, who: str) -> bool:
        """Note that somebody is present."""
        there = self.places.setdefault(place, {})
        first = who not in there
        there[who] = None
        return first

    async def leave(self, place: str, who: str) -> bool:
        """Note that somebody is present no more."""
        there = self.places.get(place, {})
        gone = who in there
        there.pop(who, None)
        if not there:
            self.places.pop(place, None)
        return gone

    async def stay(self, present: Iterable[tuple[str, str]], seconds: float) -> None:
        """Do nothing: nobody is forgotten in one process."""

    async def present(self, place: str, most: int) -> tuple[list[str], int]:
        """List who is present, and count them all."""
        there = self.places.get(place, {})
        return sorted(there)[:most], len(there)

    def trouble(self) -> str | None:
        """Know of none."""
        return None
