"""What a provider of identity changes: who is known, for how long, and what they may do."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from app.modules.realtime.rooms import KINDS, Kind
from app.ports.db.database import Database
from app.ports.identity.identity import Identity
from tests.modules.realtime.conftest import Live, Serve
from tests.modules.realtime.test_realtime import refused


async def change_user(live: Live, column: str, value: object, *, told: bool = False) -> None:
    """Change the row of who is connected; `told` does what else is done when somebody is locked out."""
    async with live.app.state.database.session() as session:
        me = next(iter(live.hub.users))
        statement = text(f"UPDATE users SET {column} = :value WHERE id = :id")
        await session.exec(statement, params={"value": value, "id": me.hex})
        for hook in [hook for module in live.app.state.modules if told for hook in module.on_lock_out]:
            await hook(session, me)


async def test_who_shows_nothing_is_refused(live: Live) -> None:
    assert (await refused(live, headers={}))[0] == 401


async def test_an_access_token_will_do_unless_a_setting_says_otherwise(serve: Serve) -> None:
    async with serve() as live:
        await live.connect(query=f"?token={await live.token()}", headers={})
        assert (await refused(live, query="?token=a.b.c", headers={}))[0] == 401
    async with serve(REALTIME_TOKEN_IN_URL="false") as live:
        assert (await refused(live, query=f"?token={await live.token()}", headers={}))[0] == 401


async def test_presence_is_of_people_and_not_of_connections(live: Live) -> None:
    ada = await live.enter("ada", "test:1")
    assert (await ada.next("presence"))["here"]
    tab = await live.enter("ada", "test:1")
    eve = await live.enter("eve", "test:1")
    came = await ada.next("presence")
    assert came["here"]
    assert (await ada.ask(type="present", room="test:1"))["total"] == 2
    await tab.connection.close()
    await eve.connection.close()
    gone = await ada.next("presence")
    assert (gone["here"], gone["user_id"]) == (False, came["user_id"])
    assert len((await ada.ask(type="present", room="test:1"))["user_ids"]) == 1


async def test_a_connection_goes_on_with_a_new_ticket_of_its_user(live: Live) -> None:
    client = await live.enter("ada")
    assert (await client.ask(type="renew", token=await live.ticket("ada")))["type"] == "renewed"
    assert (await client.ask(type="renew", token="ticket_used"))["code"] == "unauthorized"
    await client.send(type="renew", token=await live.ticket("eve"))
    assert (await client.closed())[0] == 1008


async def test_who_is_locked_out_is_cut_off_at_once(serve: Serve) -> None:
    async with serve(REALTIME_CHECK_SECONDS="600") as live:
        client, other = await live.enter("lou"), await live.enter("lou")
        eve = await live.enter("eve")
        await change_user(live, "is_active", False, told=True)
        assert (await client.closed())[0] == (await other.closed())[0] == 4403
        assert (await eve.ask(type="ping"))["type"] == "pong"
        assert (await refused(live, who="lou"))[0] in {401, 403}


async def test_who_is_locked_out_otherwise_or_whose_token_ends_is_cut_off_in_time(serve: Serve) -> None:
    async with serve(REALTIME_CHECK_SECONDS="1") as live:
        client = await live.enter("max")
        connection = next(iter(live.hub.connections))
        connection.shown = [(b"authorization", b"Bearer of.nothing.good")]
        assert (await client.closed())[0] == 4401
        await live.gone()
        client = await live.enter("max")
        await change_user(live, "is_active", False)
        assert (await client.closed())[0] == 4403


async def test_a_database_that_is_away_drops_nobody_whose_token_is_good(live: Live) -> None:
    client = await live.enter("ada")
    connection, database = next(iter(live.hub.connections)), live.app.state.database
    live.app.state.database = None
    await live.hub.check([connection])
    assert connection.farewell is None
    live.app.state.database = database
    assert (await client.ask(type="ping"))["type"] == "pong"


async def test_a_database_that_is_away_keeps_nobody_longer_than_their_token(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await live.enter("ada")
    database = live.app.state.database
    live.app.state.database = None
    monkeypatch.setattr("app.kit.clock.now", lambda: datetime.max.replace(tzinfo=UTC))
    await live.hub.check(list(live.hub.connections))
    live.app.state.database = database
    assert await client.closed() == (4401, "The token has expired.")


async def test_who_may_only_read_listens_and_does_not_tell(live: Live) -> None:
    client = await live.enter("rita", "test:1")
    await change_user(live, "role", "readonly")
    assert (await client.ask(type="send", room="test:1", event="x"))["code"] == "read_only"
    ticket = await live.ticket("rita")
    again = await live.enter(query=f"?token={ticket}", headers={})
    assert (await again.ask(type="join", room="test:1"))["type"] == "joined"


async def test_an_api_key_does_what_its_scopes_are_for(live: Live) -> None:
    api = await live.api("ada")
    for scopes, may_listen, may_tell in (
        (["realtime:read"], True, False),
        (["realtime:write"], True, True),
        (["users:read"], False, False),
    ):
        made = await api.post("/api/v1/app/api-keys", json={"name": "key", "scopes": scopes})
        assert made.status_code == 201, made.text
        headers = {"Authorization": f"Bearer {made.json()['key']}"}
        assert (await refused(live, query=f"?token={made.json()['key']}", headers={}))[0] == 401
        if not may_listen:
            assert (await refused(live, headers=headers))[0] == 403
            continue
        client = await live.enter("ada", "test:1", headers=headers)
        answer = await client.ask(type="send", room="test:1", event="x")
        assert (answer["type"] != "error") == may_tell


async def test_what_was_shown_for_a_ticket_lies_nowhere_in_the_open(live: Live) -> None:
    token, ticket = await live.token() or "", await live.ticket()
    store, here = live.hub.tickets.cache.store, live.hub.tickets.here
    kept = [*store._entries.items(), *here._entries.items()]  # type: ignore[attr-defined]
    assert any(key.startswith("ticket:") for key, _ in kept)
    assert not any(secret.encode()[:20] in key.encode() + entry[0] for key, entry in kept for secret in (token, ticket))


async def test_rooms_are_looked_at_with_who_somebody_is_now(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Identity] = []

    async def may_enter(database: Database, me: Identity, name: str) -> bool:
        asked.append(me)
        return True

    monkeypatch.setitem(KINDS, "seen", Kind("seen", may_enter, presence=False, clients_send=False))
    await live.enter("ada", "seen:1")
    connection = next(iter(live.hub.connections))
    await live.hub.check([connection])
    assert asked[1] is connection.me
    assert asked[1] is not asked[0]
