"""A server that webhooks are sent to. It verifies them as Standard Webhooks says, and fails when told to."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from standardwebhooks import Webhook

SECRET = f"whsec_{base64.b64encode(b'the secret of one receiver only').decode()}"


class Server:
    """Answers with the statuses that it is told, one after the other, and then with 204."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: list[str] = []
        self.ids: list[str] = []
        self.hosts: list[str] = []
        self.events: list[Any] = []
        self._open: asyncio.Server | None = None
        self._answering: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def start(self) -> None:
        port = int(self.url.rpartition(":")[2].partition("/")[0]) if self.url else 0
        self._open = await asyncio.start_server(self._accept, "127.0.0.1", port)
        self.url = f"http://127.0.0.1:{self._open.sockets[0].getsockname()[1]}/hook"

    async def stop(self) -> None:
        if self._open is not None:
            self._open.close()
        for task, writer in self._answering.items():
            task.cancel()
            writer.transport.abort()
        await asyncio.gather(*self._answering, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._answering[asyncio.create_task(self._answer(reader, writer))] = writer

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers["content-length"]))
        self.hosts.append(headers["host"])
        self.ids.append(headers["webhook-id"])
        answer = self.answers.pop(0) if self.answers else "204 No Content"
        if answer == "silence":
            await asyncio.sleep(60)
        if answer.startswith("2"):
            self.events.append(Webhook(SECRET).verify(body, headers))
            assert json.loads(body) == self.events[-1]
        writer.write(f"HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()


@asynccontextmanager
async def receiving() -> AsyncIterator[Server]:
    """Start a server, and stop it."""
    server = Server()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
