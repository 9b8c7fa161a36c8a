"""The pub/sub port: what the processes of this service tell each other at once, and who is present where.

A message reaches the processes that listen when it is published, and no other: what must not be lost is a row.
"""

from collections.abc import Callable, Iterable
from typing import Protocol, Self

from fastapi import FastAPI

# Takes a message, also those that this process has published itself. It returns at once, and raises for what no process
# of this version publishes.
Receive = Callable[[bytes], None]


class PubSub(Protocol):
    """An adapter, for one topic. The process that publishes a message receives it in any case."""

    reach: str

    @classmethod
    def make(cls, app: FastAPI, topic: str, receive: Receive, missed: Callable[[], None]) -> Self | None:
        """Return one for an application, or none where it lacks what this needs.

        `missed` is called when messages of other processes may have been lost.
        """

    async def open(self) -> None:
        """Begin to listen."""

    async def close(self) -> None:
        """Stop."""

    def publish(self, message: bytes) -> None:
        """Tell all processes. Returns at once and never raises."""

    async def enter(self, place: str, who: str) -> bool:
        """Note that somebody is present through this process. Returns whether they are the first time anywhere."""

    async def leave(self, place: str, who: str) -> bool:
        """Note that somebody is present through this process no more. Returns whether they are gone everywhere."""

    async def stay(self, present: Iterable[tuple[str, str]], seconds: float) -> None:
        """Say who is still present through this process: others of it are forgotten after some seconds."""

    async def present(self, place: str, most: int) -> tuple[list[str], int]:
        """List who is present, and count them all."""

    def trouble(self) -> str | None:
        """Tell why other processes cannot be reached, if so."""
