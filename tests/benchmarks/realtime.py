"""Say how long an event takes to reach all clients: `python realtime.py CLIENTS URL...`, each as ws://host:port/path.

All clients share this process and take as little of it as can be: a library that reads their frames would take longer
for that than a service needs to send them, and on a machine with few cores that would be measured. The URLs take turns,
round by round. For each there is a line with the median, the 99th percentile and the last in milliseconds, from the
moment that the first client tells the room to the moment that each has the event.
"""

import asyncio
import json
import statistics
import sys
import time
from typing import cast
from urllib.parse import urlsplit

import uvloop  # type: ignore[import-not-found, unused-ignore]
from websockets.frames import Frame, Opcode  # type: ignore[import-not-found, unused-ignore]

ROUNDS, AT_ONCE = 30, 50
HANDSHAKE = (
    "GET {0.path} HTTP/1.1\r\nHost: {0.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Client(asyncio.Protocol):
    """A client that waits for a text among what comes, and notes when it came."""

    def __init__(self, greeting: bytes) -> None:
        self.greeting = greeting
        self.expect(b" 101 ")

    def expect(self, text: bytes) -> None:
        """Wait for a text from now on."""
        self.text, self.read, self.heard_at = text, b"", 0.0
        self.heard = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for a WebSocket."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self.greeting)

    def data_received(self, data: bytes) -> None:
        """Look for the text."""
        self.read += data
        if self.text in self.read and not self.heard.done():
            self.heard_at = time.perf_counter()
            self.heard.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits that nothing will come."""
        if not self.heard.done():
            self.heard.set_exception(exc or ConnectionError(f"a client was cut off after {self.read[-300:]!r}"))

    def say(self, **message: object) -> None:
        """Send a message."""
        self.transport.write(Frame(Opcode.TEXT, json.dumps(message).encode()).serialize(mask=True))


async def enter(url: str, turn: asyncio.Semaphore) -> Client:
    """Connect a client that is in the room."""
    parts = urlsplit(url)
    async with turn, asyncio.timeout(60):
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(
            lambda: Client(HANDSHAKE.format(parts).encode()), str(parts.hostname), int(parts.port or 80)
        )
        await client.heard
        client.expect(b'"joined"')
        client.say(type="join", room="bench:1")
        await client.heard
    return client


async def tell(crowd: list[Client], number: int) -> list[float]:
    """Let the first client tell the others, and return how many seconds each waited."""
    text = f"round {number} "
    for client in crowd:
        client.expect(text.encode())
    await asyncio.sleep(0.3)
    start = time.perf_counter()
    crowd[0].say(type="send", room="bench:1", event="tick", data={"text": text + "x" * 100})
    async with asyncio.timeout(60):
        await asyncio.gather(*(client.heard for client in crowd))
    return [client.heard_at - start for client in crowd]


async def main(clients: int, *urls: str) -> None:
    """Connect all to each, and let the first one tell the others."""
    turn = asyncio.Semaphore(AT_ONCE)
    crowds = [await asyncio.gather(*(enter(url, turn) for _ in range(clients))) for url in urls]
    taken: list[list[float]] = [[] for _ in urls]
    for number in range(ROUNDS):
        for crowd, times in zip(crowds, taken, strict=True):
            times.extend(await tell(crowd, number))
    for crowd in crowds:
        for client in crowd:
            client.transport.abort()
    for times in taken:
        cuts = statistics.quantiles(times, n=100)
        print(cuts[49] * 1000, cuts[98] * 1000, max(times) * 1000)


uvloop.run(main(int(sys.argv[1]), *sys.argv[2:]))
