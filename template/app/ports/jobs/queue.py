"""The jobs port: `enqueue` writes a job in the caller's transaction, and hands it over once that is committed."""

import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID
from weakref import WeakKeyDictionary

import sqlalchemy
from sqlalchemy import Engine, event, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session as SyncSession
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from app.kit import clock
from app.kit.ids import new_id
from app.ports.db.database import Database
from app.ports.jobs.models import Job, State
from app.ports.jobs.tasks import Call


class Committed(NamedTuple):
    """A job that is there to stay."""

    id: UUID
    queue: str
    run_at: datetime


HandOver = Callable[[Sequence[Committed]], None]
_engines: WeakKeyDictionary[Engine, HandOver] = WeakKeyDictionary()
_INSERT = insert(Job.__table__)  # type: ignore[attr-defined]


async def enqueue(
    session: AsyncSession,
    call: Call,
    *,
    owner: UUID | None = None,
    delay: timedelta | None = None,
    at: datetime | None = None,
    key: str | None = None,
) -> UUID:
    """Have a task run after this transaction has been committed; never, when it is rolled back. Returns the job's id.

    `owner` may ask how it is. With a `key` the task has one job at a time, whose id is returned while it is there.
    """
    if key is not None and (len(key) > 200 or re.search("[\0\ud800-\udfff]", key)):
        raise ValueError("The key of a job has 200 characters at most, and none that databases cannot store.")
    if at is not None and at.utcoffset() is None:
        raise ValueError("The time `at` which a job runs needs its time zone, such as datetime.now(UTC) has it.")
    now = clock.now()
    values: dict[str, Any] = {
        "id": new_id(),
        "created_at": now,
        "updated_at": now,
        "task": call.task.name,
        "queue": call.task.queue.value,
        "arguments": call.arguments,
        "owner_id": owner,
        "unique_key": key,
        "state": State.QUEUED.value,
        "attempts": 0,
        "most_attempts": call.task.attempts,
        "run_at": at or (now + delay if delay else now),
    }
    if key is None:
        await session.run_sync(_insert, values)
    elif present := await _insert_once(session, values):
        return present
    job = Committed(values["id"], values["queue"], values["run_at"])
    session.sync_session.info.setdefault("jobs", []).append(job)
    return job.id


def _insert(session: SyncSession, values: dict[str, Any]) -> None:
    # What the job refers to, such as the row of its owner, has to be there first.
    session.flush()
    session.connection().execute(_INSERT, values)


async def _insert_once(session: AsyncSession, values: dict[str, Any]) -> UUID | None:
    """Insert a job unless there is one with its key, whose id is returned then."""
    await session.flush()
    there = select(col(Job.id)).where(col(Job.task) == values["task"], col(Job.unique_key) == values["unique_key"])
    while True:
        present: UUID | None = (await (await session.connection()).execute(there)).scalar_one_or_none()
        if present:
            return present
        try:
            async with session.begin_nested():
                # Asked for in here: only then is the savepoint set.
                await (await session.connection()).execute(_INSERT, values)
        except IntegrityError as error:
            # Somebody was quicker. That one may have ended by now, and then the key is free.
            if "unique" not in str(error.orig).lower():
                raise
        else:
            return None


def listen(database: Database, hand_over: HandOver) -> None:
    """Hand the jobs that this process commits to a database over to an engine."""
    _engines[database.engine.sync_engine] = hand_over


def ignore(database: Database) -> None:
    """Hand nothing over any more: jobs wait for whoever looks for them."""
    _engines.pop(database.engine.sync_engine, None)


@event.listens_for(SyncSession, "after_commit")
def _committed(session: SyncSession) -> None:
    if not session.info.get("jobs") or session.in_nested_transaction():
        return
    committed, session.info["jobs"] = session.info["jobs"], []
    bind: sqlalchemy.Connection | Engine = session.get_bind()
    if hand_over := _engines.get(bind.engine):
        hand_over(committed)
