"""What comes over the wire below the messages: frames, and the handshake before them."""

import asyncio
import json
import re
import socket

import pytest
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame, Opcode

from app.modules.realtime.connection import Text
from app.modules.realtime.publishing import event_message
from tests.modules.realtime.conftest import WS, Live, Serve, handshake
from tests.modules.realtime.test_hostile import raw


@pytest.mark.parametrize(
    ("junk", "code"),
    [
        (b"\xff" * 50, 1002),
        (Frame(Opcode.TEXT, b"unmasked").serialize(mask=False), 1002),
        (b"\x80\x80\x00\x00\x00\x00", 1002),
        (b"\xf1\x80\x00\x00\x00\x00", 1002),
        (b"\x81\x82\x00\x00\x00\x00\xff\xfe", 1007),
    ],
    ids=["no frame", "not masked", "continues nothing", "reserved bits", "no UTF-8"],
)
async def test_what_is_no_websocket_ends_one(live: Live, junk: bytes, code: int) -> None:
    client = await live.enter()
    client.connection.transport.write(junk)
    assert (await client.closed())[0] == code
    await live.gone()


async def test_what_waits_for_a_slow_client_comes_in_order(serve: Serve) -> None:
    """What the connection takes at once must not overtake what waits."""
    async with serve(REALTIME_QUEUE="10000") as live:
        slow = await raw(live)
        hub, loop = live.hub, asyncio.get_running_loop()
        while not hub.connections:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        connection, room = next(iter(hub.connections)), next(iter(hub.rooms))
        # The kernel would hold megabytes of it.
        transport: asyncio.Transport = connection._write.__self__.transport
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        read, behind = bytearray(), 0
        async with asyncio.timeout(30):
            for number in range(300):
                hub.deliver(event_message(room, "large", {"number": number, "text": "x" * 5000}))
                behind = max(behind, len(connection._waiting))
                if number % 50 > 40:
                    read += await loop.sock_recv(slow, 65_536)
                    await asyncio.sleep(0)
            while b'"number":299,' not in read[-10_000:]:
                read += await loop.sock_recv(slow, 65_536)
        assert [int(number) for number in re.findall(rb'"number":(\d+),', read)] == list(range(300))
        assert behind > 10
        slow.close()


async def test_under_another_server_clients_hear_the_same(serve: Serve) -> None:
    async with serve(ws=WebSocketsSansIOProtocol) as live:
        client, other = await live.enter("ada", "test:1"), await live.enter("ada", "test:1")
        for number in range(100):
            live.hub.deliver(event_message("test:1", "said", {"number": number, "text": "\N{RINGED PLANET}" * 100}))
        for one in (client, other):
            heard = [await one.next("event") for _ in range(100)]
            assert [event["data"]["number"] for event in heard] == list(range(100))
        connection = next(iter(live.hub.connections))
        connection.end(1008, "Enough.")
        connection.offer(Text("unheard"))
        assert not connection._waiting


async def test_frames_of_any_length_are_read_as_they_were_written(live: Live) -> None:
    client = await live.enter("ada", "test:1")
    await client.next("presence")
    for length in (0, 20, 125, 126, 300, 32_000, 64_000):
        live.hub.deliver(event_message("test:1", "said", "\N{EURO SIGN}" * (length // 3)))
        assert (await client.next("event"))["data"] == "\N{EURO SIGN}" * (length // 3)


FLOODS = {
    "pings": Frame(Opcode.PING, b"x" * 125).serialize(mask=True) * 2000,
    "pongs nobody asked for": Frame(Opcode.PONG, b"").serialize(mask=True) * 2000,
    "a message that never ends": Frame(Opcode.TEXT, b"", fin=False).serialize(mask=True)
    + Frame(Opcode.CONT, b"", fin=False).serialize(mask=True) * 2000,
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
async def test_frames_that_are_no_messages_are_limited_as_well(live: Live, flood: bytes) -> None:
    client = await live.enter()
    client.connection.transport.write(flood)
    assert await client.closed() == (1008, "Too many frames: send fewer.")
    await live.gone()


async def test_a_large_message_may_come_in_parts(live: Live) -> None:
    client = await live.enter("ada", "test:1")
    text = json.dumps({"type": "send", "room": "test:1", "event": "x", "data": "x" * 15_000})
    for _ in range(10):
        await client.connection.send(text[at : at + 1024] for at in range(0, len(text), 1024))
        await client.connection.ping()
        assert len((await client.next("event"))["data"]) == 15_000


@pytest.mark.parametrize(
    ("path", "more"),
    [(f"{WS}?token={'a' * 9000}", ""), (WS, "X: 1\r\n" * 200), (WS, f"X: {'a' * 9000}\r\n")],
    ids=["long line", "many headers", "long header"],
)
async def test_a_handshake_that_is_too_large_is_answered(live: Live, path: str, more: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
    writer.write(handshake(more, path))
    try:
        async with asyncio.timeout(10):
            assert (await reader.read()).startswith((b"HTTP/1.1 414", b"HTTP/1.1 431"))
    finally:
        writer.close()


async def test_nothing_is_compressed(live: Live) -> None:
    """What a client compressed could be a thousand times as large, and each would cost memory of its own."""
    client = await live.enter("ada", compression="deflate")
    assert client.connection.response is not None
    assert "Sec-WebSocket-Extensions" not in client.connection.response.headers
