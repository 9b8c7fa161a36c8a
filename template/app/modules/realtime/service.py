"""Rules of realtime: who is connected, who is in which room, and that both still may."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

from fastapi import FastAPI
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket

from app.kit import clock
from app.kit.errors import AppError, Unavailable
from app.kit.logging import get_logger
from app.kit.settings import load
from app.modules.realtime import admission
from app.modules.realtime.admission import Refused
from app.modules.realtime.connection import FORBIDDEN, GOING_AWAY, POLICY, SIGN_IN, Connection, Text
from app.modules.realtime.publishing import CHECK, event_message, ignore, listen, tell_later, written
from app.modules.realtime.rooms import kind_of, user_room
from app.modules.realtime.schemas import (
    Join,
    Leave,
    Ping,
    Present,
    RealtimeStatus,
    Renew,
    Say,
    WrongMessageError,
    read_message,
)
from app.modules.realtime.settings import RealtimeSettings
from app.modules.realtime.tickets import Tickets
from app.ports.pubsub.adapters import make_pubsub

# So many connections are looked at at a time: requests want the database as well.
CHECKS_AT_ONCE = 4
MOST_NAMED = 100
log = get_logger(__name__)


class Hub:
    """The connections of this process and the rooms that they are in."""

    def __init__(self, app: FastAPI, settings: RealtimeSettings) -> None:
        self.app, self.settings = app, settings
        self.tickets = Tickets(app.state.cache, timedelta(seconds=settings.realtime_ticket_seconds))
        self.pubsub = make_pubsub(app, "realtime", self.deliver, self.tell_missed)
        self.connections: set[Connection] = set()
        self.users: dict[UUID, set[Connection]] = {}
        self.rooms: dict[str, set[Connection]] = {}
        self._closed = False
        self._checking: set[asyncio.Task[None]] = set()

    def status(self, user_id: UUID) -> RealtimeStatus:
        """Tell a user how realtime is."""
        return RealtimeStatus(
            reach=self.pubsub.reach,
            connections=len(self.users.get(user_id, ())),
            most_connections=self.settings.realtime_connections_per_user,
            message_bytes=self.settings.realtime_message_bytes,
            ping_seconds=self.settings.realtime_ping_seconds,
            check_seconds=self.settings.realtime_check_seconds,
        )

    # Connections.

    async def admit(self, websocket: WebSocket) -> Connection:
        """Let a client connect. Raises AppError."""
        admission.check_origin(websocket)
        await admission.count_handshake(websocket)
        self._check_room()
        shown = await admission.read_shown(websocket, self.tickets)
        me = await admission.identify(websocket, shown)
        self._check_room()
        mine = self.users.setdefault(me.user_id, set())
        if len(mine) >= self.settings.realtime_connections_per_user:
            raise Refused(429, "You have too many connections: close one of them.", "too_many_connections")
        connection = Connection(websocket, me, shown, self.settings)
        mine.add(connection)
        self.connections.add(connection)
        return connection

    def _check_room(self) -> None:
        if self._closed or len(self.connections) >= self.settings.realtime_connections:
            raise Unavailable("This process has no room for one more connection. Try again shortly.")

    async def serve(self, connection: Connection) -> None:
        """Speak with a client until it goes."""
        own = user_room(connection.me.user_id)
        self._enter(connection, own)
        connection.tell(type="welcome", user_id=connection.me.user_id, rooms=[own])
        await connection.run(lambda text: self.handle(connection, text))

    async def forget(self, connection: Connection) -> None:
        """Let go of a client that has gone."""
        self.connections.discard(connection)
        mine = self.users.get(connection.me.user_id, set())
        mine.discard(connection)
        if not mine:
            self.users.pop(connection.me.user_id, None)
        for room in list(connection.rooms):
            await self._leave(connection, room)

    # Messages of clients.

    async def handle(self, connection: Connection, text: str) -> None:
        """Do what a client asks for, or say in a sentence why not."""
        ref = None
        try:
            message = read_message(text)
            ref = message.ref
            match message:
                case Join():
                    await self._join(connection, message)
                case Leave():
                    await self._leave(connection, self._inside(connection, message.room))
                    connection.tell(type="left", room=message.room, ref=ref)
                case Present():
                    await self._tell_present(connection, message)
                case Say():
                    await self._say(connection, message)
                case Renew():
                    await self._renew(connection, message)
                case Ping():
                    connection.tell(type="pong", ref=ref)
        except WrongMessageError as error:
            connection.tell(type="error", code="invalid", detail=str(error))
        except AppError as error:
            connection.tell(type="error", code=error.code or _code(error.status), detail=error.detail, ref=ref)

    async def _join(self, connection: Connection, message: Join) -> None:
        room = message.room
        if room not in connection.rooms:
            if len(connection.rooms) >= self.settings.realtime_rooms:
                raise Refused(429, f"You are in {self.settings.realtime_rooms} rooms: leave one.", "too_many_rooms")
            try:
                allowed = await self._may_enter(connection, room)
            except AppError:
                raise
            except Exception as error:
                log.exception("it could not be told whether a client may enter a room", room=room)
                raise Unavailable("Whether this room is for you cannot be told now. Try again shortly.") from error
            if not allowed:
                raise Refused(404, "There is no such room, or it is not for you.")
            first = self._enter(connection, room)
            connection.tell(type="joined", room=room, ref=message.ref)
            if first:
                await self._announce(connection, room)
        else:
            connection.tell(type="joined", room=room, ref=message.ref)

    async def _tell_present(self, connection: Connection, message: Present) -> None:
        room = self._inside(connection, message.room)
        kind = kind_of(room)
        if kind is None or not kind.presence:
            raise Refused(403, "This room does not tell who is in it.", "no_presence")
        try:
            named, total = await self.pubsub.present(room, MOST_NAMED)
        except Exception as error:
            raise Unavailable("Who is here cannot be told now. Try again shortly.") from error
        connection.tell(type="present", room=room, user_ids=named, total=total, ref=message.ref)

    async def _say(self, connection: Connection, message: Say) -> None:
        room = self._inside(connection, message.room)
        kind = kind_of(room)
        if kind is None or not kind.clients_send:
            raise Refused(403, "In this room only the service tells something.", "no_sending")
        # As for a request that changes something: who may only read is refused, and who is no more let in.
        await admission.identify(connection.websocket, connection.shown, "POST")
        try:
            event = event_message(room, message.event, message.data, sender=str(connection.me.user_id))
        except ValueError as error:
            raise Refused(413, str(error), "too_large") from error
        self.pubsub.publish(event)
        connection.tell(type="sent", room=room, ref=message.ref)

    async def _renew(self, connection: Connection, message: Renew) -> None:
        shown = await admission.read_token(message.token, self.tickets)
        me = await admission.identify(connection.websocket, shown)
        if me.user_id != connection.me.user_id:
            return connection.end(POLICY, "That is somebody else's token: connect anew.")
        connection.shown, connection.me = shown, me
        return connection.tell(type="renewed", ref=message.ref)

    def _inside(self, connection: Connection, room: str) -> str:
        if room not in connection.rooms:
            raise Refused(409, "You are not in this room: join it first.", "not_joined")
        return room

    # Rooms.

    async def _may_enter(self, connection: Connection, room: str) -> bool:
        kind = kind_of(room)
        name = room.partition(":")[2]
        return kind is not None and await kind.may_enter(self.app.state.database, connection.me, name)

    def _enter(self, connection: Connection, room: str) -> bool:
        """Note that a connection is in a room. Returns whether it is the first of its user here."""
        inside = self.rooms.setdefault(room, set())
        first = all(other.me.user_id != connection.me.user_id for other in self.users_in(connection, inside))
        inside.add(connection)
        connection.rooms.add(room)
        return first

    def users_in(self, connection: Connection, inside: set[Connection]) -> Iterable[Connection]:
        """Return the connections of a connection's user that are inside, without looking at all that are."""
        return self.users.get(connection.me.user_id, set()) & inside

    async def _leave(self, connection: Connection, room: str) -> None:
        inside = self.rooms.get(room, set())
        inside.discard(connection)
        connection.rooms.discard(room)
        if not inside:
            self.rooms.pop(room, None)
        kind = kind_of(room)
        if kind and kind.presence and not self.users_in(connection, inside):
            who = str(connection.me.user_id)
            if await self.pubsub.leave(room, who):
                self.pubsub.publish(_presence_message(room, who, here=False))

    async def _announce(self, connection: Connection, room: str) -> None:
        kind = kind_of(room)
        who = str(connection.me.user_id)
        if kind and kind.presence and await self.pubsub.enter(room, who):
            self.pubsub.publish(_presence_message(room, who, here=True))

    # What comes from this and from other processes.

    def deliver(self, message: bytes) -> None:
        """Give a message to all who are in its room."""
        room, _, text = message.partition(b"\n")
        if room == CHECK.encode():
            user_id = UUID(text.decode())
            return self._start(self.check(list(self.users.get(user_id, ()))))
        if inside := self.rooms.get(room.decode()):
            shared = Text(text.decode())
            for connection in list(inside):
                connection.offer(shared)
        return None

    def tell_missed(self) -> None:
        """Tell all clients that they may have missed something of other processes."""
        for connection in list(self.connections):
            connection.tell(type="missed")

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._checking.add(task)
        task.add_done_callback(self._checking.discard)

    # Whether those who are here still may be.

    async def keep_checking(self) -> None:
        """Look again and again at who is connected, for as long as the process runs."""
        while True:
            await asyncio.sleep(self.settings.realtime_check_seconds)
            try:
                await self.check(list(self.connections))
                seconds = 3 * self.settings.realtime_check_seconds
                await self.pubsub.stay(self._all_present(), seconds)
            except Exception:
                log.exception("realtime could not look after its connections, and will try again")

    def _all_present(self) -> list[tuple[str, str]]:
        kinds = ((room, inside, kind_of(room)) for room, inside in self.rooms.items())
        return [
            (room, who)
            for room, inside, kind in kinds
            if kind and kind.presence
            for who in {str(connection.me.user_id) for connection in inside}
        ]

    async def check(self, connections: list[Connection]) -> None:
        """Cut off who may no longer be connected, and lead out of rooms who may no longer be in them."""
        waiting = iter(connections)

        async def look() -> None:
            for connection in waiting:
                if connection in self.connections:
                    await self._check_one(connection)
                    await asyncio.sleep(0)  # Where nothing has to be waited for, events come first all the same.

        await asyncio.gather(*(look() for _ in range(CHECKS_AT_ONCE)))

    async def _check_one(self, connection: Connection) -> None:
        shown = connection.shown
        expires = getattr(getattr(connection.me, "token", None), "expires_at", None)
        try:
            me = await admission.identify(connection.websocket, shown)
        except AppError as error:
            if connection.shown is not shown:
                return None  # It has a newer token meanwhile.
            if error.status == 403:
                return connection.end(FORBIDDEN, error.detail)
            if error.status == 401 or (expires and expires <= clock.now()):
                return connection.end(SIGN_IN, error.detail)
            log.warning("a connection could not be checked", reason=error.detail)
        except Exception as error:
            # What is away says nothing about who is connected, but for the time that a token is good.
            if connection.shown is shown and expires and expires <= clock.now():
                return connection.end(SIGN_IN, "The token has expired.")
            log.warning("a connection could not be checked", reason=type(error).__name__)
        else:
            if connection.shown is shown:
                connection.me = me
            for room in list(connection.rooms):
                await self._check_room_of(connection, room)
        return None

    async def _check_room_of(self, connection: Connection, room: str) -> None:
        """Lead out who may no longer be in a room. One that cannot tell keeps no other from being looked at."""
        try:
            stays = await self._may_enter(connection, room)
        except Exception as error:
            stays = not isinstance(error, AppError) or error.status not in {403, 404}
            if stays:
                log.warning("a room could not be checked", room=room, reason=type(error).__name__)
        if not stays:
            await self._leave(connection, room)
            connection.tell(type="left", room=room, detail="This room is no longer for you.")

    async def close(self) -> None:
        """Say goodbye to all who are still here."""
        self._closed = True
        for connection in list(self.connections):
            connection.end(GOING_AWAY, "The service is going down: connect again.")
        for task in list(self._checking):
            task.cancel()


def _code(status: int) -> str:
    return {401: "unauthorized", 403: "forbidden", 404: "not_found", 503: "unavailable"}.get(status, "refused")


def _presence_message(room: str, who: str, *, here: bool) -> bytes:
    return written(room, {"type": "presence", "room": room, "user_id": who, "here": here})


async def check_now(session: AsyncSession, user_id: UUID) -> None:
    """Look at the connections of a user at once, in all processes, when they have been locked out."""
    tell_later(session, f"{CHECK}\n{user_id}".encode())


def hub_of(connection: HTTPConnection) -> Hub:
    """Return the hub of an application."""
    hub: Hub = connection.app.state.realtime
    return hub


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Take connections, and tell what is committed."""
    app.state.realtime = hub = Hub(app, load(RealtimeSettings))
    database, quiet = app.state.database, keep_queries_out_of_logs()
    await hub.pubsub.open()
    listen(database, hub.pubsub)
    checking = asyncio.create_task(hub.keep_checking())
    try:
        yield
    finally:
        ignore(database)
        checking.cancel()
        await asyncio.gather(checking, return_exceptions=True)
        await hub.close()
        await hub.pubsub.close()
        quiet()


def keep_queries_out_of_logs() -> Callable[[], None]:
    """Keep the server from logging the URLs of WebSockets, with the tickets in them. Returns what undoes it."""
    logger = logging.getLogger("uvicorn.error")

    def has_no_url(record: logging.LogRecord) -> bool:
        # What it says of handshakes and, at the level DEBUG, of every line and frame.
        return "WebSocket %s" not in str(record.msg) and record.levelno > logging.DEBUG

    level = logger.level
    logger.addFilter(has_no_url)
    # The library asks for the level, not for the filter, before it writes down what comes and goes.
    logger.setLevel(max(logging.INFO, logger.getEffectiveLevel()))

    def undo() -> None:
        logger.removeFilter(has_no_url)
        logger.setLevel(level)

    return undo
