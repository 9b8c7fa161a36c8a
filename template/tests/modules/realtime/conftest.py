"""A whole service that listens on a port, on a database of its own, and clients that connect to it."""

import asyncio
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Self

import pytest
import uvicorn
from alembic import command
from alembic.config import Config
from fastapi import FastAPI
from httpx2 import AsyncClient
from sqlalchemy import text
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from app.installed import WEBSOCKETS
from app.kit.settings import forget
from app.main import create_app
from app.main import lifespan as running
from app.modules.realtime.rooms import KINDS, room
from app.modules.realtime.service import Hub
from app.ports.db.database import Database
from app.ports.identity.identity import Identity

WS = "/api/v1/app/ws"
# Services without accounts have no provider to sign in with: whoever comes is their one user.
VOUCHED = importlib.util.find_spec("tests.provider") is not None
closed_to: set[str] = set()


class Client:
    """A client that speaks JSON."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, **message: Any) -> None:
        await self.connection.send(json.dumps(message))

    async def next(self, *kinds: str) -> dict[str, Any]:
        """Return the next message, or the next of these types."""
        async with asyncio.timeout(30):
            while True:
                message: dict[str, Any] = json.loads(await self.connection.recv())
                if not kinds or message["type"] in kinds:
                    return message

    async def ask(self, **message: Any) -> dict[str, Any]:
        """Send a message and return what answers it."""
        await self.send(**message, ref="asked")
        while True:
            answer = await self.next()
            if answer.get("ref") == "asked" or (answer["type"] == "error" and "ref" not in answer):
                return answer

    async def closed(self) -> tuple[int, str]:
        """Wait until the service has closed the connection, and return its code and reason."""
        async with asyncio.timeout(15):
            await self.connection.wait_closed()
        return self.connection.close_code or 0, self.connection.close_reason or ""


class Live:
    """A service that listens."""

    def __init__(self, app: FastAPI, port: int, provider: Any) -> None:
        self.app, self.port, self.provider = app, port, provider
        self.stack = AsyncExitStack()

    @property
    def hub(self) -> Hub:
        hub: Hub = self.app.state.realtime
        return hub

    async def token(self, who: str = "ada", **claims: Any) -> str | None:
        """Sign somebody in, where people do."""
        if self.provider is None:
            return None
        token: str = await self.provider.sign_in(self.app, sub=who, email=f"{who}@example.com", **claims)
        return token

    async def headers(self, who: str = "ada") -> dict[str, str]:
        token = await self.token(who)
        return {"Authorization": f"Bearer {token}"} if token else {}

    async def api(self, who: str = "ada") -> AsyncClient:
        headers = await self.headers(who)
        made = AsyncClient(base_url=f"http://127.0.0.1:{self.port}", headers=headers)
        return await self.stack.enter_async_context(made)

    async def ticket(self, who: str = "ada") -> str:
        answer = await (await self.api(who)).post(f"{WS}/ticket")
        assert answer.status_code == 201, answer.text
        ticket: str = answer.json()["ticket"]
        return ticket

    async def connect(self, who: str = "ada", *, port: int | None = None, query: str = "", **options: Any) -> Client:
        """Connect somebody, with a header as programs do, or as the query says."""
        headers = options.pop("headers", None)
        if headers is None:
            headers = {} if query else await self.headers(who)
        url = f"ws://127.0.0.1:{port or self.port}{WS}{query}"
        opened = connect(url, additional_headers=headers, open_timeout=10, close_timeout=2, **options)
        return Client(await self.stack.enter_async_context(opened))

    async def enter(self, who: str = "ada", *rooms: str, **options: Any) -> Client:
        """Connect somebody who joins rooms."""
        client = await self.connect(who, **options)
        assert (await client.next())["type"] == "welcome"
        for name in rooms:
            assert (await client.ask(type="join", room=name))["type"] == "joined"
        return client

    async def gone(self, connections: int = 0) -> None:
        """Wait until no more than these connections are left."""
        async with asyncio.timeout(10):
            while len(self.hub.connections) > connections:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stack.aclose()


def handshake(headers: str, path: str = WS) -> bytes:
    """Write what asks for a WebSocket."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    ).encode()


async def pour(client: Client, messages: list[str]) -> None:
    """Send as fast as the service takes it, until it closes the connection."""

    async def listen() -> None:
        with suppress(ConnectionClosed):
            async for _ in client.connection:
                pass

    listening = asyncio.create_task(listen())
    with suppress(ConnectionClosed):
        for message in messages:
            await client.connection.send(message)
            await asyncio.sleep(0)
    await listening


Serve = Callable[..., Any]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def own_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    url = f"sqlite:///{tmp_path_factory.mktemp('realtime')}/test.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", url)
        forget()
        command.upgrade(Config(toml_file=Path("pyproject.toml").absolute()), "head")
    forget()
    yield url
    forget()


@pytest.fixture(scope="module")
def vouching() -> Iterator[Any]:
    """The provider of identity, if there is one."""
    with ExitStack() as stack:
        if VOUCHED:
            yield stack.enter_context(importlib.import_module("tests.provider").Provider())
        else:
            yield None


@pytest.fixture
def environment(own_database: str, vouching: Any) -> dict[str, str]:
    """What a process of this service has in its environment."""
    return {"DATABASE_URL": own_database, **(vouching.environment if vouching else {})}


@pytest.fixture
def kinds() -> Iterator[None]:
    """Rooms of tests: whoever is not in `closed_to` may enter, talk, and see the others."""

    @room("test", presence=True, clients_send=True)
    async def open_to_most(database: Database, me: Identity, name: str) -> bool:
        return name not in closed_to

    @room("quiet")
    async def open_to_all(database: Database, me: Identity, name: str) -> bool:
        await database.fetch(text("SELECT 1"))
        return True

    yield
    closed_to.clear()
    for kind in ("test", "quiet"):
        KINDS.pop(kind)


@pytest.fixture
def serve(kinds: None, environment: dict[str, str], vouching: Any) -> Serve:
    """Serve in this process, with settings."""

    @asynccontextmanager
    async def serve(ws: type[asyncio.Protocol] = WEBSOCKETS, **settings: str) -> AsyncIterator[Live]:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {**environment, **settings}.items():
                patch.setenv(name, value)
            forget()
            async with listening(ws) as live:
                yield live
        forget()

    @asynccontextmanager
    async def listening(ws: type[asyncio.Protocol]) -> AsyncIterator[Live]:
        app, port = create_app(), free_port()
        config = uvicorn.Config(app, port=port, ws=ws, lifespan="off", log_config=None)
        server = uvicorn.Server(config)
        async with running(app), AsyncExitStack() as stack:
            if vouching is not None:
                await stack.enter_async_context(vouching.verifying(app))
            server.capture_signals = nullcontext  # type: ignore[assignment, method-assign]
            task = asyncio.create_task(server.serve())
            while not server.started:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            try:
                async with Live(app, port, vouching) as live:
                    yield live
            finally:
                server.should_exit = True
                await task

    return serve


@pytest.fixture
async def live(serve: Serve) -> AsyncIterator[Live]:
    async with serve() as live:
        yield live


@contextmanager
def process(log: Path, environment: dict[str, str], **settings: str) -> Iterator["tuple[int, subprocess.Popen[bytes]]"]:
    """Serve in a process of its own."""
    port = free_port()
    env = os.environ | environment | {"LOG_LEVEL": "INFO", **settings}
    with log.open("wb") as output:
        serve = [sys.executable, "-m", "app.cli", "serve", "--port", str(port)]
        started = subprocess.Popen(serve, env=env, stdout=output, stderr=subprocess.STDOUT)
    try:
        while "Uvicorn running" not in log.read_text():
            assert started.poll() is None, log.read_text()
            time.sleep(0.05)
        yield port, started
    finally:
        started.kill()
        started.wait(20)
