"""Telling a room of what happens: after the commit, through all processes, and never when it is rolled back."""

import re
from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy
from pydantic import BaseModel, TypeAdapter
from sqlalchemy import Engine, event
from sqlalchemy.orm import Session as SyncSession
from sqlalchemy.orm import SessionTransaction
from sqlmodel.ext.asyncio.session import AsyncSession

from app.kit import clock
from app.modules.realtime.rooms import kind_of
from app.modules.realtime.schemas import ROOM_PATTERN
from app.ports.db.database import Database
from app.ports.pubsub.pubsub import PubSub

MOST_BYTES = 65_536
# For the processes alone: whose connections to look at now.
CHECK = "!check"
# Messages, with the savepoint that each depends on.
Waiting = list[tuple[SessionTransaction | None, bytes]]
_json = TypeAdapter(Any)
_told: WeakKeyDictionary[Engine, PubSub] = WeakKeyDictionary()


def publish(session: AsyncSession, room: str, name: str, data: BaseModel | dict[str, Any] | None = None) -> None:
    """Tell a room of an event once this transaction is committed. Clients get its name and its data.

    It reaches who is connected then, at most once: clients ask for what they may have missed when they connect.
    """
    if not re.fullmatch(ROOM_PATTERN, room) or kind_of(room) is None:
        raise ValueError(f"There is no kind of room for {room}: see @room.")
    tell_later(session, event_message(room, name, data))


def event_message(room: str, name: str, data: object, sender: str | None = None) -> bytes:
    """Write an event for clients, behind the name of its room. Raises ValueError for one that is too large."""
    told = {"type": "event", "room": room, "event": name, "data": data, "at": clock.now()}
    message = written(room, told | ({"from": sender} if sender else {}))
    if len(message) > MOST_BYTES:
        raise ValueError(f"An event has {MOST_BYTES} bytes at most: tell where the rest is.")
    return message


def written(room: str, message: dict[str, Any]) -> bytes:
    """Write what clients get, behind the name of its room."""
    return f"{room}\n".encode() + _json.dump_json(message)


def tell_later(session: AsyncSession, message: bytes) -> None:
    """Give a message to all processes once what was done in this transaction, or savepoint, is there to stay."""
    waiting = session.sync_session.info.setdefault("realtime", [])
    waiting.append((session.sync_session.get_nested_transaction(), message))


def listen(database: Database, pubsub: PubSub) -> None:
    """Tell what this process commits to a database."""
    _told[database.engine.sync_engine] = pubsub


def ignore(database: Database) -> None:
    """Tell nothing any more."""
    _told.pop(database.engine.sync_engine, None)


@event.listens_for(SyncSession, "after_commit")
def _committed(session: SyncSession) -> None:
    waiting: Waiting = session.info.get("realtime", [])
    if savepoint := session.get_nested_transaction():
        outer = savepoint.parent if savepoint.parent and savepoint.parent.nested else None
        waiting[:] = [(outer if owner is savepoint else owner, message) for owner, message in waiting]
    elif waiting:
        session.info["realtime"] = []
        bind: sqlalchemy.Connection | Engine = session.get_bind()
        if pubsub := _told.get(bind.engine):
            for _, message in waiting:
                pubsub.publish(message)


@event.listens_for(SyncSession, "after_soft_rollback")
def _rolled_back(session: SyncSession, ended: SessionTransaction) -> None:
    waiting: Waiting = session.info.get("realtime", [])
    waiting[:] = [(owner, message) for owner, message in waiting if ended.nested and not _within(owner, ended)]


def _within(inner: SessionTransaction | None, outer: SessionTransaction) -> bool:
    while inner is not None and inner is not outer:
        inner = inner.parent
    return inner is outer
