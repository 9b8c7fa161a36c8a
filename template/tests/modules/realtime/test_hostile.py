"""Clients that mean harm, do not listen, or are not there any more."""

import asyncio
import json
import os
import random
import socket
from pathlib import Path
from typing import Any

import pytest
from starlette.datastructures import Headers
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode

from app.modules.realtime.publishing import event_message
from app.modules.realtime.settings import RealtimeSettings
from app.modules.realtime.tickets import shown_by
from tests.modules.realtime.conftest import Live, Serve, handshake, pour, process
from tests.modules.realtime.test_realtime import refused


async def raw(live: Live, port: int | None = None) -> socket.socket:
    """Connect somebody who takes in as little as can be, and answers nothing."""
    headers = "".join(f"{name}: {value}\r\n" for name, value in (await live.headers()).items())
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", port or live.port))
    await loop.sock_sendall(client, handshake(headers))
    assert (await loop.sock_recv(client, 12)).endswith(b" 101")
    return client


async def cut_off(client: socket.socket) -> None:
    """Read what is left, until the connection has ended."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(15):
        try:
            while await loop.sock_recv(client, 65_536):
                pass
        except ConnectionError:
            return
        finally:
            client.close()


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://app.example.com", 101),
        ("http://localhost:5173", 101),
        ("http://[::1]:3000", 101),
        ("https://evil.example", 403),
        ("https://app.example.com.evil.example", 403),
        ("https://app.example.com:444", 403),
        ("http://app.example.com", 403),
        ("http://localhost.evil.example", 403),
        ("http://[::1", 403),
        ("null", 403),
        ("", 403),
    ],
)
async def test_pages_of_other_sites_may_not_connect(serve: Serve, origin: str, status: int) -> None:
    async with serve(REALTIME_ORIGINS="https://app.example.com") as live:
        options: dict[str, Any] = {"headers": {**await live.headers(), "Origin": origin}}
        if status == 101:
            await live.connect(**options)
        else:
            assert (await refused(live, **options))[0] == status


async def test_production_takes_only_pages_that_are_listed(monkeypatch: pytest.MonkeyPatch, serve: Serve) -> None:
    # Where any page may call the API, it is without cookies. Here a browser would send them along.
    settings: dict[str, str]
    for settings in ({}, {"CORS_ORIGINS": "*", "CORS_ALLOW_CREDENTIALS": "false"}):
        async with serve(**settings) as live:
            with monkeypatch.context() as patch:
                patch.setattr("app.kit.settings.CoreSettings.production", True)
                headers = {**await live.headers(), "Origin": "http://localhost:5173"}
                assert (await refused(live, headers=headers))[0] == 403
                with pytest.raises(ValueError, match="any page connect"):
                    RealtimeSettings(realtime_origins="*")


WRONG = [
    "",
    "x",
    "null",
    "[]",
    '"join"',
    "{}",
    '{"type": null}',
    '{"type": "erase"}',
    '{"type": "join"}',
    '{"type": "join", "room": "nothing"}',
    '{"type": "join", "room": "test:\N{GRINNING FACE}"}',
    '{"type": "join", "room": "test:a\\u0000b"}',
    '{"type": "join", "room": "!check:1"}',
    '{"type": "join", "room": "test:' + "a" * 101 + '"}',
    '{"type": "join", "room": {"a": 1}}',
    '{"type": "join", "room": "test:1", "admin": true}',
    '{"type": "ping", "ref": "' + "r" * 65 + '"}',
    '{"type": "ping", "ref": 7}',
    '{"type": "send", "room": "test:1", "event": "\N{SNOWMAN}"}',
    '{"type": "send", "room": "test:1", "event": "x", "data": NaN}',
    '{"type": "send", "room": "test:1", "event": "x", "data": "\\ud800"}',
    '{"type": "send", "room": "test:1", "event": "x", "data": ' + "[" * 7000 + "]" * 7000 + "}",
    '{"type": "send", "room": "test:1", "event": "x", "data": ' + '{"a":' * 2500 + "1" + "}" * 2500 + "}",
    '{"type": "send", "room": "test:1", "event": "x", "data": 1' + "0" * 10_000 + "}",
    '{"type":' * 1500,
    "\ufeff{}",
    "\u202e\u0000\x1b[31m",
]


# Numbers that JSON does not have, or that are hard to read, harm nobody.
GOOD = [wrong for wrong in WRONG if '"data": NaN' in wrong or '"data": 10' in wrong]


async def test_what_is_wrong_is_told_in_a_sentence_and_nobody_is_dropped(serve: Serve) -> None:
    async with serve(REALTIME_MESSAGES_PER_SECOND="100") as live:
        client = await live.enter("ada", "test:1")
        await client.next("presence")
        for wrong in WRONG:
            await client.connection.send(wrong)
            answer = await client.next()
            assert answer["type"] in {"error", "event", "sent"}, wrong
            if answer["type"] == "error":
                assert answer["detail"].endswith(".")
                assert len(answer["detail"]) < 300
            else:
                assert wrong in GOOD
                await client.next("sent", "event")
        assert (await client.ask(type="ping"))["type"] == "pong"


async def test_too_large_a_message_is_not_read(live: Live) -> None:
    client = await live.enter()
    await pour(client, ["x" * 1_048_576] * 20)
    assert (await client.closed())[0] == 1009
    small = await live.enter()
    await small.connection.send("\N{GRINNING FACE}" * 4097)
    assert (await small.closed())[0] == 1009
    await live.gone()


async def test_binary_is_refused(live: Live) -> None:
    client = await live.enter()
    await client.connection.send(os.urandom(1000))
    assert await client.closed() == (1003, "Send JSON as text.")


async def test_a_flood_ends_the_connection(live: Live) -> None:
    client = await live.enter()
    await pour(client, ['{"type": "ping"}'] * 100_000)
    assert await client.closed() == (1008, "Too many messages: send fewer.")


async def test_a_client_that_reads_nothing_is_dropped_and_the_others_are_not(serve: Serve) -> None:
    async with serve(REALTIME_QUEUE="20") as live:
        deaf, client = await raw(live), await live.enter()
        room = next(iter(live.hub.rooms))
        for number in range(1000):
            live.hub.pubsub.publish(event_message(room, "large", {"number": number, "text": "x" * 10_000}))
            assert (await client.next("event"))["data"]["number"] == number
            if len(live.hub.connections) == 1:
                break
        await live.gone(1)
        # It is not only forgotten: the connection ends.
        await cut_off(deaf)
        assert (await client.ask(type="ping"))["type"] == "pong"


async def test_a_client_that_is_gone_without_a_word_is_dropped(serve: Serve) -> None:
    async with serve(REALTIME_PING_SECONDS="0.5") as live:
        gone, client = await raw(live), await live.enter()
        assert len(live.hub.connections) == 2
        await live.gone(1)
        await cut_off(gone)
        assert (await client.ask(type="ping"))["type"] == "pong"


async def test_a_client_that_reads_nothing_does_not_keep_the_service_from_stopping(
    live: Live, environment: dict[str, str], tmp_path: Path
) -> None:
    settings = {"REALTIME_MESSAGES_PER_SECOND": "1000", "REALTIME_QUEUE": "10000", "GRACEFUL_SHUTDOWN_SECONDS": "60"}
    with process(tmp_path / "log", environment, **settings) as (port, started):
        deaf = await raw(live, port)
        ping = Frame(Opcode.TEXT, json.dumps({"type": "ping", "ref": "r" * 64}).encode()).serialize(mask=True)
        for _ in range(200):
            await asyncio.get_running_loop().sock_sendall(deaf, ping * 10)
            await asyncio.sleep(0.01)
        started.terminate()
        assert await asyncio.to_thread(started.wait, 30) == 0
        deaf.close()


async def test_many_who_come_and_go_leave_nothing_behind(serve: Serve) -> None:
    async with serve(REALTIME_MESSAGES_PER_SECOND="1000", REALTIME_CONNECTIONS_PER_USER="100") as live:

        async def storm(seed: int) -> None:
            client, dice = await live.enter(), random.Random(seed)
            for _ in range(40):
                await client.send(type=dice.choice(["join", "join", "leave"]), room=f"test:{dice.randrange(5)}")
            if dice.random() < 0.5:
                await client.ask(type="ping")
                await client.connection.close()
            else:
                client.connection.transport.abort()

        await asyncio.gather(*(storm(seed) for seed in range(40)))
        await live.gone()
        assert (live.hub.rooms, live.hub.users, live.hub.pubsub.places) == ({}, {}, {})


async def test_connections_are_limited(serve: Serve) -> None:
    async with serve(REALTIME_CONNECTIONS="3", REALTIME_CONNECTIONS_PER_USER="2") as live:
        headers = await live.headers()
        both = [await live.connect(headers=headers) for _ in range(2)]
        assert await refused(live, headers=headers) == (429, "You have too many connections: close one of them.")
        await both[0].connection.close()
        await live.gone(1)
        storm = (live.connect(headers=headers) for _ in range(20))
        found = await asyncio.gather(*storm, return_exceptions=True)
        assert sum(not isinstance(one, InvalidStatus) for one in found) == 1
        live.hub.settings = RealtimeSettings(realtime_connections=2)
        assert (await refused(live, headers=headers))[0] == 503


async def test_a_process_takes_no_more_connections_than_it_has_room_for(serve: Serve) -> None:
    async with serve(REALTIME_CONNECTIONS="3") as live:
        headers = await live.headers()
        storm = (live.connect(headers=headers) for _ in range(19))
        found = await asyncio.gather(*storm, return_exceptions=True)
        assert sum(not isinstance(one, InvalidStatus) for one in found) == 3
        await live.hub.close()
        await live.gone()
        assert (await refused(live, headers=headers))[0] == 503


async def test_handshakes_are_counted_like_requests(serve: Serve) -> None:
    async with serve(RATE_LIMIT_ENABLED="true", RATE_LIMIT_DEFAULT="3/hour") as live:
        found = [await refused(live, query="?token=ticket_x", headers={}) for _ in range(5)]
        assert [status for status, _ in found] == [401, 401, 401, 429, 429]


async def test_an_event_that_is_too_large_is_refused(serve: Serve) -> None:
    async with serve(REALTIME_MESSAGE_BYTES="1000000") as live:
        client = await live.enter("ada", "test:1")
        answer = await client.ask(type="send", room="test:1", event="x", data="x" * 70_000)
        while answer["type"] == "presence":
            answer = await client.next()
        assert (answer["code"], answer["ref"]) == ("too_large", "asked")


def test_what_a_request_shows_is_kept_and_nothing_else() -> None:
    given = {"Authorization": "Bearer x", "Cookie": "a=b", "Accept": "*/*", "Origin": "https://a.example"}
    assert {name for name, _ in shown_by(Headers(given))} == {b"authorization", b"origin"}
    assert {name for name, _ in shown_by(Headers({"Cookie": "a=b", "X-Other": "1"}))} == {b"cookie"}
