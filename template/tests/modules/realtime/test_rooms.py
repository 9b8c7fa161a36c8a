"""Who is in a room, for how long, and in how many."""

import json

import pytest

from app.kit.errors import NotFound
from app.modules.realtime.rooms import KINDS, Kind
from tests.modules.realtime.conftest import Live, Serve, closed_to, pour


async def test_a_client_is_in_few_rooms(serve: Serve) -> None:
    async with serve(REALTIME_MESSAGES_PER_SECOND="1000") as live:
        client = await live.enter()
        answers = [await client.ask(type="join", room=f"quiet:{number}") for number in range(1000)]
        assert sum(answer["type"] == "joined" for answer in answers) == 49
        assert answers[-1]["code"] == "too_many_rooms"
        assert len(live.hub.rooms) == 50
    async with serve() as live:
        client = await live.enter()
        await pour(client, [json.dumps({"type": "join", "room": f"quiet:{number}"}) for number in range(10_000)])
        assert (await client.closed())[0] == 1008
        await live.gone()
        assert live.hub.rooms == {}


async def test_who_may_no_longer_be_in_a_room_is_led_out(serve: Serve) -> None:
    async with serve(REALTIME_CHECK_SECONDS="1") as live:
        client = await live.enter("ada", "test:1", "test:2")
        closed_to.add("1")
        left = await client.next("left")
        assert (left["room"], left["detail"]) == ("test:1", "This room is no longer for you.")
        assert "test:1" not in live.hub.rooms
        assert "test:2" in live.hub.rooms


async def test_rooms_that_cannot_tell_who_may_enter_do_no_harm(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    broken: list[Exception] = []

    async def may_enter(*_: object) -> bool:
        if broken:
            raise broken[0]
        return True

    for number in range(10):
        monkeypatch.setitem(KINDS, f"odd{number}", Kind(f"odd{number}", may_enter, presence=False, clients_send=False))
    client = await live.enter("ada", *(f"odd{number}:1" for number in range(10)), "test:1")
    connection = next(iter(live.hub.connections))
    broken.append(ValueError("badly formed"))
    assert (await client.ask(type="join", room="odd1:2"))["code"] == "unavailable"
    # Nor do they keep somebody in the rooms that can tell.
    closed_to.add("1")
    await live.hub.check([connection])
    assert (await client.next("left"))["room"] == "test:1"
    assert "odd1:1" in connection.rooms
    broken[0] = NotFound("No.")
    await live.hub.check([connection])
    assert {room.partition(":")[0] for room in connection.rooms} == {"user"}
    assert (await client.ask(type="ping", room=None))["type"] == "error"
    assert connection.farewell is None
