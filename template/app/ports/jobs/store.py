"""The queries for jobs: claiming, ending, giving back. Every change of a job that runs asks for its claim."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Engine, and_, bindparam, case, delete, func, literal, not_, null, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from app.kit import clock
from app.kit.logging import redact_text
from app.ports.db.database import Database
from app.ports.jobs.models import Job, State
from app.ports.jobs.tasks import TASKS, Queue, Task

LOST = "The worker was lost."
MOST_TRACEBACK = 20_000
_jobs = Job.__table__  # type: ignore[attr-defined]
_c = _jobs.c
_KNOWN = _c.task.in_(bindparam("known", expanding=True))
# Of each queue the first entry of the index, and not all that wait.
_DUE = select(
    *(
        select(_c.run_at)
        .where(_c.state == State.QUEUED, _c.queue == queue.value, _KNOWN)
        .order_by(_c.run_at)
        .limit(1)
        .scalar_subquery()
        .label(queue.value)
        for queue in Queue
    )
)
_RETURNED = (_c.id, _c.task, _c.queue, _c.arguments, _c.owner_id, _c.attempts, _c.most_attempts, _c.claim)


def _due(*conditions: Any) -> Any:
    return select(_c.id).where(_c.state == State.QUEUED, _KNOWN, _c.run_at <= bindparam("now"), *conditions)


def _claim(wanted: Any) -> Any:
    """Build the statement that takes due jobs. What others are about to take is skipped, and nobody waits."""
    due = wanted.with_for_update(skip_locked=True).cte("due")
    return (
        update(_jobs)
        .where(_c.id.in_(select(due.c.id)))
        .values(
            state=State.RUNNING,
            attempts=_c.attempts + 1,
            claim=bindparam("new_claim"),
            lease_until=bindparam("lease"),
            progress=None,
            note=None,
            updated_at=bindparam("now"),
        )
        .returning(*_RETURNED)
    )


_CLAIM = _claim(_due(_c.queue == bindparam("from_queue")).order_by(_c.run_at).limit(bindparam("most")))
# These are found by their ids. In an order they would be looked for among all that wait, and all that ever have.
_CLAIM_THESE = _claim(_due(_c.id.in_(bindparam("job_ids", expanding=True))))
_END = (
    update(_jobs)
    .where(_c.id == bindparam("job_id"), _c.claim == bindparam("held"), _c.state == State.RUNNING)
    .values(
        {name: bindparam(f"new_{name}", type_=_c[name].type) for name in ("state", "attempts", "error")}
        | {"run_at": func.coalesce(bindparam("new_run_at", type_=_c.run_at.type), _c.run_at)}
        | {name: bindparam(f"new_{name}", type_=_c[name].type) for name in ("traceback", "result", "finished_at")}
        | {name: bindparam(f"new_{name}", type_=_c[name].type) for name in ("progress", "note", "updated_at")}
        | {"claim": null(), "lease_until": null()}
        | {"unique_key": case((bindparam("new_state") == State.QUEUED.value, _c.unique_key), else_=null())}
        # Nobody needs them any more, and they may hold what should not be kept.
        | {"arguments": case((bindparam("new_state") == State.SUCCEEDED.value, "{}"), else_=_c.arguments)}
    )
)
_RENEW = (
    update(_jobs)
    .where(_c.claim.in_(bindparam("held", expanding=True)), _c.state == State.RUNNING)
    .values(lease_until=bindparam("lease"), updated_at=_c.updated_at)
    .returning(_c.id, _c.claim)
)
_REPORT = (
    update(_jobs)
    .where(_c.id == bindparam("job_id"), _c.claim == bindparam("held"))
    .values(progress=bindparam("new_progress"), note=bindparam("new_note"), updated_at=bindparam("now"))
)
_EXPIRED = (_c.state == State.RUNNING, _c.lease_until < bindparam("now"))
_GIVEN_BACK = {"claim": null(), "lease_until": null(), "error": LOST, "updated_at": bindparam("now")}
_RECLAIM = (
    update(_jobs)
    .where(*_EXPIRED, _c.attempts < _c.most_attempts)
    .values(state=State.QUEUED, run_at=bindparam("now"), **_GIVEN_BACK)
    .returning(_c.id, _c.queue, _c.run_at)
)
_BURY = (
    update(_jobs)
    .where(*_EXPIRED, _c.attempts >= _c.most_attempts)
    .values(state=State.DEAD, finished_at=bindparam("now"), unique_key=null(), **_GIVEN_BACK)
    .returning(_c.id, _c.task)
)
_FORGET = delete(_jobs).where(
    or_(
        and_(_c.state == State.SUCCEEDED, _c.finished_at < bindparam("old")),
        and_(_c.state == State.DEAD, _c.finished_at < bindparam("old_dead")),
    )
)
_DUE_COUNTS = (
    select(_c.queue, func.count().label("due"))
    .where(_c.state == State.QUEUED, _KNOWN, _c.run_at <= bindparam("now"))
    .group_by(_c.queue)
)
_LATE = (
    select(_c.id, _c.queue, _c.run_at)
    .where(_c.state == State.QUEUED, _KNOWN, _c.queue == bindparam("from_queue"), _c.run_at < bindparam("before"))
    .order_by(_c.run_at)
    .limit(bindparam("most"))
)
_COUNTS = select(
    func.count().filter(_c.state == State.QUEUED, _KNOWN, _c.run_at <= bindparam("now")).label("due"),
    func.min(_c.run_at, type_=_c.run_at.type).filter(_c.state == State.QUEUED, _KNOWN).label("oldest"),
    func.count().filter(_c.state == State.RUNNING).label("running"),
    func.count().filter(_c.state == State.DEAD).label("dead"),
).where(_c.state.in_([State.QUEUED, State.RUNNING, State.DEAD]))
_STRANGE = (
    select(_c.task, func.count().label("jobs"))
    .where(_c.state == State.QUEUED, _c.run_at <= bindparam("now"), not_(_KNOWN))
    .group_by(_c.task)
    .order_by(_c.task)
)


def storable(text: str) -> str:
    """Return a text without secrets, and without what not every database can store, such as exceptions may hold."""
    return redact_text(text).encode(errors="backslashreplace").decode().replace("\0", "\\0")


@dataclass(frozen=True, slots=True)
class Claimed:
    """A job that this process holds, for one attempt."""

    id: UUID
    task: Task[Any]
    # The one of its row, which gave it its slot: the code may have another one for the task by now.
    queue: Queue
    arguments: str
    owner_id: UUID | None
    attempt: int
    most_attempts: int
    claim: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What has become of an attempt."""

    job: Claimed
    state: State
    result: str | None = None
    error: str | None = None
    traceback: str | None = None
    run_at: datetime | None = None
    # What a process that stops gives back was no attempt.
    attempts: int | None = None
    progress: float | None = None
    note: str | None = None

    def parameters(self) -> dict[str, Any]:
        """Return what ends the attempt."""
        now = clock.now()
        return {
            "job_id": self.job.id,
            "held": self.job.claim,
            "new_state": self.state.value,
            "new_attempts": self.job.attempt if self.attempts is None else self.attempts,
            # What has ended keeps the time at which it was due.
            "new_run_at": self.run_at or (now if self.state is State.QUEUED else None),
            "new_error": self.error and storable(self.error)[:500],
            "new_traceback": self.traceback and storable(self.traceback)[-MOST_TRACEBACK:],
            "new_result": self.result,
            "new_finished_at": None if self.state is State.QUEUED else now,
            "new_progress": 1.0 if self.state is State.SUCCEEDED else self.progress,
            "new_note": self.note and storable(self.note)[:200],
            "new_updated_at": now,
        }


class JobStore:
    """Reads and changes the rows of jobs, in transactions of its own."""

    def __init__(self, database: Database, lease: timedelta) -> None:
        self.database, self.lease = database, lease

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[AsyncConnection]:
        """Give a connection for statements each of which is a transaction: a server is asked a third as often."""
        async with self.database.session() as session:
            bind = session.get_bind()
            alone = isinstance(bind, Engine) and bind.dialect.name != "sqlite"
            yield await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"} if alone else None)

    async def due(self) -> Mapping[Queue, datetime]:
        """Tell when the next job of each queue is due, without a transaction."""
        (row,) = await self.database.fetch(_DUE, {"known": list(TASKS)})
        return {queue: moment for queue in Queue if (moment := getattr(row, queue.value))}

    async def claim(self, queue: Queue, most: int) -> Sequence[Claimed]:
        """Take due jobs of a queue, so many at most."""
        async with self._alone() as connection:
            return await self._claim(connection, _CLAIM, {"from_queue": queue.value, "most": most})

    async def claim_these(self, ids: Sequence[UUID]) -> Sequence[Claimed]:
        """Take those of these jobs that are due and that nobody has."""
        async with self._alone() as connection:
            return await self._claim(connection, _CLAIM_THESE, {"job_ids": list(ids)})

    async def _claim(self, connection: AsyncConnection, statement: Any, given: dict[str, Any]) -> list[Claimed]:
        now = clock.now()
        given |= {"known": list(TASKS), "now": now, "lease": now + self.lease, "new_claim": uuid4()}
        rows = await connection.execute(statement, given)
        return [
            Claimed(
                id=row.id,
                task=TASKS[row.task],
                queue=Queue(row.queue),
                arguments=row.arguments,
                owner_id=row.owner_id,
                attempt=row.attempts,
                most_attempts=row.most_attempts,
                claim=row.claim,
            )
            for row in rows
        ]

    async def renew(self, held: Sequence[UUID]) -> set[tuple[UUID, UUID]]:
        """Prolong the leases of claims, and return the jobs and claims that are still held."""
        async with self.database.session() as session:
            given = {"held": list(held), "lease": clock.now() + self.lease}
            return {(row.id, row.claim) for row in await (await session.connection()).execute(_RENEW, given)}

    async def report(self, reports: Iterable[tuple[Claimed, float | None, str | None]]) -> None:
        """Write how far jobs are."""
        now = clock.now()
        given = [
            {"job_id": job.id, "held": job.claim, "new_progress": progress, "new_note": note and storable(note)[:200]}
            | {"now": now}
            for job, progress, note in reports
        ]
        if given:
            async with self.database.session() as session:
                await (await session.connection()).execute(_REPORT, given)

    async def end(self, outcomes: Sequence[Outcome]) -> None:
        """End attempts, all in one transaction. Those that somebody else holds by now are left alone."""
        async with self._alone() as connection:
            await connection.execute(_END, [outcome.parameters() for outcome in outcomes])

    @staticmethod
    async def end_in(session: AsyncSession, outcome: Outcome) -> bool:
        """End an attempt in a transaction of the task, and tell whether it was still held."""
        done = await (await session.connection()).execute(_END, outcome.parameters())
        return done.rowcount == 1

    async def sweep(self, keep: timedelta, keep_dead: timedelta) -> tuple[Sequence[Any], Sequence[str]]:
        """Put back what lost workers held, and forget what is old. Returns what is back, and which tasks are dead."""
        now = clock.now()
        async with self.database.session() as session:
            connection = await session.connection()
            buried = (await connection.execute(_BURY, {"now": now})).all()
            back = (await connection.execute(_RECLAIM, {"now": now})).all()
            await connection.execute(_FORGET, {"old": now - keep, "old_dead": now - keep_dead})
        return back, [f"{row.task} {row.id}" for row in buried]

    async def overdue(self, before: datetime, most: int) -> Sequence[Any]:
        """Find queued jobs that should have been taken before a time."""
        late = (
            select(_c.id, _c.queue, _c.run_at)
            .where(_c.state == State.QUEUED, _KNOWN, _c.run_at < before)
            .order_by(_c.run_at)
            .limit(most)
        )
        return await self.database.fetch(late, {"known": list(TASKS)})

    async def lost(self, told: Mapping[Queue, int], before: datetime, most: int) -> Sequence[Any]:
        """Find jobs that should have been taken before a time: of each queue as many as more are due than are told."""
        due = {
            row.queue: row.due
            for row in await self.database.fetch(_DUE_COUNTS, {"now": clock.now(), "known": list(TASKS)})
        }
        found: list[Any] = []
        for queue, known in told.items():
            if (left := min(due.get(queue.value, 0) - known, most)) > 0:
                given = {"from_queue": queue.value, "before": before, "most": left, "known": list(TASKS)}
                found += await self.database.fetch(_LATE, given)
        return found

    async def counts(self) -> Any:
        """Count what waits, runs and is dead."""
        (row,) = await self.database.fetch(_COUNTS, {"now": clock.now(), "known": list(TASKS)})
        return row

    async def strange(self) -> Mapping[str, int]:
        """Count the due jobs of tasks that are not in this code, by their tasks: an older or a newer version's."""
        rows = await self.database.fetch(_STRANGE, {"now": clock.now(), "known": list(TASKS)})
        return {row.task: row.jobs for row in rows}

    async def retry(self, id: UUID | None) -> int:
        """Queue a dead job again, or all of them, with its attempts before it. Returns how many."""
        again = update(_jobs).where(_c.state == State.DEAD)
        if id is not None:
            again = again.where(_c.id == id)
        async with self.database.session() as session:
            done = await (await session.connection()).execute(
                again.values(state=State.QUEUED, attempts=literal(0), run_at=clock.now(), finished_at=None)
            )
        return done.rowcount

    async def drop(self, id: UUID | None = None, task: str | None = None) -> int:
        """Remove a job, or those of a task, unless they run or have succeeded. Returns how many."""
        left = delete(_jobs).where(_c.state.in_([State.QUEUED, State.DEAD]))
        async with self.database.session() as session:
            which = left.where(_c.id == id) if task is None else left.where(_c.task == task)
            return (await (await session.connection()).execute(which)).rowcount

    async def find(self, id: UUID) -> Job | None:
        """Find a job."""
        async with self.database.session() as session:
            return await session.get(Job, id)

    async def newest(self, state: State | None, most: int) -> Sequence[Any]:
        """List jobs, the newest first."""
        wanted = select(_c.id, _c.task, _c.queue, _c.state, _c.attempts, _c.created_at, _c.error)
        if state is not None:
            wanted = wanted.where(_c.state == state)
        return await self.database.fetch(wanted.order_by(col(_c.created_at).desc()).limit(most))
