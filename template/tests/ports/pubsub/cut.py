"""A server that can go away and come back: what stands between it and its clients."""

import asyncio
from contextlib import suppress
from typing import Self


class Cut:
    """Listens on a port and passes on what comes, until it is told to refuse everybody or to leave them hanging."""

    def __init__(self, host: str, port: int) -> None:
        self.target, self.port = (host, port), 0
        self._state = "passes"
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self._drop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def refuse(self) -> None:
        """Close all connections, and each that comes."""
        self._state = "refuses"
        self._drop()

    def hang(self) -> None:
        """Keep all connections, and answer nothing."""
        self._state = "hangs"

    def mend(self) -> None:
        """Pass on what comes again. Connections that hung are gone."""
        self._state = "passes"
        self._drop()

    def _drop(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._state == "refuses":
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            there, back = await asyncio.open_connection(*self.target)
            self._writers |= {writer, back}
            with suppress(OSError, asyncio.CancelledError):
                await asyncio.gather(self._pass(reader, back), self._pass(there, writer))
            self._writers -= {writer, back}
            back.transport.abort()
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            if self._state != "passes":
                await asyncio.Event().wait()
            writer.write(data)
        raise ConnectionResetError
