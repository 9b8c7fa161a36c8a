"""What clients can rely on: tickets, rooms, presence, and events that come after the commit."""

import asyncio
import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text
from websockets.exceptions import InvalidStatus

from app.modules.realtime.publishing import publish
from app.modules.realtime.rooms import user_room
from tests.modules.realtime.conftest import WS, Live, Serve, closed_to, process


def told(error: InvalidStatus) -> tuple[int, str]:
    """Return the status with which a connection was refused, and the sentence."""
    return error.response.status_code, str(json.loads(error.response.body)["detail"])


async def refused(live: Live, **options: Any) -> tuple[int, str]:
    with pytest.raises(InvalidStatus) as caught:
        await live.connect(**options)
    return told(caught.value)


async def test_a_ticket_is_good_once(live: Live) -> None:
    ticket = await live.ticket()
    client = await live.connect(query=f"?token={ticket}", headers={})
    welcome = await client.next()
    assert (welcome["type"], welcome["rooms"]) == ("welcome", [f"user:{welcome['user_id']}"])
    assert (await refused(live, query=f"?token={ticket}", headers={}))[0] == 401


async def test_two_at_once_do_not_both_use_a_ticket(live: Live) -> None:
    for _ in range(5):
        query = f"?token={await live.ticket()}"
        both = await asyncio.gather(*(live.connect(query=query, headers={}) for _ in range(4)), return_exceptions=True)
        assert sum(isinstance(one, InvalidStatus) for one in both) == 3


async def test_a_ticket_is_good_once_where_the_store_answers_too_late(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = live.hub.tickets.cache
    keep = cache.keep_once

    async def keep_and_time_out(*given: Any) -> bool:
        await keep(*given)
        return False

    monkeypatch.setattr(cache, "keep_once", keep_and_time_out)
    query = f"?token={await live.ticket()}"
    await live.connect(query=query, headers={})
    assert (await refused(live, query=query, headers={}))[0] == 401


async def test_a_ticket_ends(serve: Serve) -> None:
    async with serve(REALTIME_TICKET_SECONDS="5") as live:
        live.hub.tickets.lifetime /= 100
        ticket = await live.ticket()
        await asyncio.sleep(0.1)
        assert (await refused(live, query=f"?token={ticket}", headers={}))[0] == 401


@pytest.mark.parametrize("token", ["ticket_", "ticket_" + "0" * 64, "key_abc", "", "ticket_%00", "%F0%9F%94%91"])
async def test_what_is_no_ticket_is_refused(live: Live, token: str) -> None:
    status, detail = await refused(live, query=f"?token={token}", headers={})
    assert status == 401
    assert detail.endswith(".")
    assert (await refused(live, query=f"?token={token}&token={token}", headers={}))[0] == 400


async def test_an_event_comes_after_the_commit_and_never_when_it_is_rolled_back(live: Live) -> None:
    client = await live.enter()
    me = next(iter(live.hub.users))
    database = live.app.state.database

    async def fail() -> None:
        async with database.session() as session:
            publish(session, user_room(me), "lost")
            await session.exec(text("SELECT 1"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with database.session() as session:
        await session.exec(text("SELECT 1"))
        savepoint = await session.begin_nested()
        publish(session, user_room(me), "lost.with.its.savepoint")
        await savepoint.rollback()
        async with session.begin_nested():
            publish(session, user_room(me), "first", {"name": "Ada \N{RINGED PLANET}"})
        publish(session, user_room(me), "second")
        await asyncio.sleep(0.05)
        assert (await client.ask(type="ping"))["type"] == "pong"  # And nothing before it.
    first, second = await client.next("event"), await client.next("event")
    assert (first["event"], first["data"], first["room"]) == ("first", {"name": "Ada \N{RINGED PLANET}"}, user_room(me))
    assert (second["event"], second["data"]) == ("second", None)


async def test_what_nobody_can_enter_or_read_is_not_told(live: Live) -> None:
    async with live.app.state.database.session() as session:
        for name in ("nothing:1", "user", "user:a b", f"user:{'a' * 101}", "!check:1"):
            with pytest.raises(ValueError, match="no kind of room"):
                publish(session, name, "event")
        with pytest.raises(ValueError, match="65536 bytes"):
            publish(session, user_room(uuid4()), "event", {"text": "x" * 70_000})


async def test_those_in_a_room_hear_each_other(live: Live) -> None:
    here, there = await live.enter("ada", "test:1"), await live.enter("ada", "test:2")
    data = {"text": "grüß dich \N{EARTH GLOBE EUROPE-AFRICA}", "deep": [[{"a": None}]]}
    assert (await here.ask(type="send", room="test:1", event="said", data=data))["type"] in {"sent", "event"}
    heard = await live.enter("ada", "test:1")
    await here.send(type="send", room="test:1", event="said", data=data)
    event = await heard.next("event")
    assert (event["data"], event["event"], event["room"]) == (data, "said", "test:1")
    assert event["from"] == str(next(iter(live.hub.users)))
    assert (await there.ask(type="ping"))["type"] == "pong"


async def test_only_who_may_is_in_a_room(live: Live) -> None:
    client = await live.enter()
    closed_to.add("secret")
    for name in ("test:secret", "nothing:1", f"user:{uuid4()}"):
        answer = await client.ask(type="join", room=name)
        assert (answer["code"], answer["detail"]) == ("not_found", "There is no such room, or it is not for you.")
    for kind in ("send", "leave", "present"):
        more = {"event": "x"} if kind == "send" else {}
        assert (await client.ask(type=kind, room="test:1", **more))["code"] == "not_joined"
    await client.ask(type="join", room="quiet:1")
    assert (await client.ask(type="send", room="quiet:1", event="x"))["code"] == "no_sending"
    assert (await client.ask(type="present", room="quiet:1"))["code"] == "no_presence"
    assert (await client.ask(type="leave", room="quiet:1"))["type"] == "left"
    assert "quiet:1" not in live.hub.rooms


async def test_the_status_tells_the_limits(live: Live) -> None:
    client = await live.enter()
    status = (await (await live.api()).get(f"{WS}/status")).json()
    assert (status["reach"], status["connections"], status["most_connections"]) == ("this process", 1, 20)
    await client.connection.close()
    await live.gone()
    assert (live.hub.users, live.hub.rooms) == ({}, {})


async def test_the_query_is_in_no_log_and_the_service_says_goodbye(
    live: Live, environment: dict[str, str], tmp_path: Path
) -> None:
    log, secret = tmp_path / "log", "ticket_" + "5e" * 32
    with process(log, environment, LOG_LEVEL="DEBUG", LOG_FORMAT="json") as (port, started):
        token = await live.token()
        query = f"?token={token}&more=odd-{secret}" if token else f"?more=odd-{secret}"
        client = await live.connect(port=port, query=query, headers={})
        assert (await client.next())["type"] == "welcome"
        with pytest.raises(InvalidStatus):
            await live.connect(port=port, query=f"?token={secret}&%74oken=odd", headers={})
        await client.send(type="renew", token=secret)
        await client.next("error")
        started.terminate()
        assert (await client.closed())[0] == 1001
        assert started.wait(10) == 0
    written = log.read_text()
    assert "websocket opened" in written
    assert "websocket refused" in written
    assert "?" not in written.replace("?token=`", "")
    for hidden in (secret[10:], "odd-", *([token[-20:]] if token else [])):
        assert hidden not in written
