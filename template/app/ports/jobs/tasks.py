"""Tasks: functions of a slice that run outside of a request. Calling one makes a `Call`, which `enqueue` stores."""

import asyncio
import inspect
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Concatenate, Generic, ParamSpec, get_type_hints
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model
from sqlmodel.ext.asyncio.session import AsyncSession

from app.kit.ids import new_id
from app.ports.db.database import Database

P = ParamSpec("P")
MOST_BYTES = 65_536


class Queue(StrEnum):
    """Where a task waits. Each queue has slots of its own, so that none holds up the others."""

    DEFAULT = "default"
    HEAVY = "heavy"
    LLM = "llm"


class Retry(Exception):
    """A task raises this to be tried again, after a while of its own choice. It counts as an attempt."""

    def __init__(self, reason: str, *, after: timedelta | None = None) -> None:
        super().__init__(reason)
        self.after = after


class GiveUp(Exception):
    """A task raises this when trying again makes no sense. The owner of the job sees the sentence."""


class Superseded(Exception):
    """Somebody else has the job by now: what was done in this transaction is rolled back."""


class WrongArguments(TypeError):
    """A task was called with what it does not take."""


# Writes in a session that a job has ended, with the JSON of its result; tells whether it was still this worker's.
End = Callable[[AsyncSession, str], Awaitable[bool]]


@dataclass(slots=True, kw_only=True)
class Running:
    """One attempt at a job, as its task sees it."""

    id: UUID
    attempt: int
    owner_id: UUID | None
    app: FastAPI
    end: End
    progress: float | None = None
    note: str | None = None
    ended: bool = False
    # Somebody else has the job by now. A sync task that takes long looks at it, for nobody can stop a thread.
    lost: bool = False
    thread: "asyncio.Future[Any] | None" = None
    write: Callable[[Any], str] = field(default=str)

    @property
    def database(self) -> Database:
        """The database of the service, for sessions and reads of the task."""
        database: Database = self.app.state.database
        return database

    def report(self, progress: float, note: str | None = None) -> None:
        """Say how far the job is, from 0 to 1. It is written every few seconds; also from the thread of a sync task."""
        self.progress, self.note = min(max(progress, 0.0), 1.0), note

    @asynccontextmanager
    async def ending(self, result: Any = None) -> AsyncIterator[AsyncSession]:
        """Open the transaction in which the job ends: what is changed in it happens once, however often it is tried.

        Raises Superseded, and changes nothing, when somebody else has the job.
        """
        async with self.database.session() as session:
            yield session
            await session.flush()
            if not await self.end(session, self.write(result)):
                raise Superseded("somebody else has this job")
        self.ended = True


@dataclass(frozen=True, slots=True)
class Call:
    """A task with arguments that fit."""

    task: "Task[Any]"
    arguments: str


class Task(Generic[P]):
    """A function with what is to be known about running it. Its first parameter takes the `Running` job."""

    def __init__(
        self,
        function: Callable[Concatenate[Running, P], Any],
        *,
        name: str,
        queue: Queue,
        attempts: int,
        backoff: timedelta,
        timeout: timedelta,
        cron: str | None,
        zone: str,
    ) -> None:
        self.function, self.name, self.queue = function, name, queue
        self.attempts, self.backoff, self.timeout = attempts, backoff, timeout
        self.cron, self.zone = cron, zone
        if attempts < 1:
            raise TypeError(f"{name}: attempts counts the first one as well, so it is 1 or more.")
        _, *parameters = inspect.signature(function).parameters.values()
        if any(one.kind not in {one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY} for one in parameters):
            raise TypeError(f"{name}: a task takes no *args, no **kwargs and nothing by position alone.")
        hints = get_type_hints(function, include_extras=True)
        fields: dict[str, Any] = {}
        for one in parameters:
            if one.name not in hints:
                raise TypeError(f"{name}: {one.name} has no type, and arguments are checked by it.")
            fields[one.name] = (hints[one.name], ... if one.default is one.empty else one.default)
        self._signature = inspect.Signature(parameters)
        config = ConfigDict(extra="forbid", arbitrary_types_allowed=False, protected_namespaces=())
        self._model: type[BaseModel] = create_model(f"{name} arguments", __config__=config, **fields)
        self._result: TypeAdapter[Any] = TypeAdapter(hints.get("return", Any))
        if cron is not None:
            self._check_cron(fields)

    def _check_cron(self, fields: dict[str, Any]) -> None:
        if needed := [name for name, (_, default) in fields.items() if default is ...]:
            raise TypeError(f"{self.name}: nobody gives a cron {', '.join(needed)}; they need defaults.")
        try:
            self.next_after(datetime(2026, 1, 1, tzinfo=ZoneInfo("UTC")))
        except (CronSimError, StopIteration) as error:
            raise TypeError(f"{self.name}: {self.cron!r} is no cron expression: {error}.") from None
        except (ZoneInfoNotFoundError, ValueError):
            raise TypeError(f"{self.name}: {self.zone!r} is no time zone; one looks like Europe/Berlin.") from None

    def next_after(self, moment: datetime) -> datetime:
        """Return when the cron comes next, by the clocks of its time zone."""
        tick: datetime = next(CronSim(self.cron or "", moment.astimezone(ZoneInfo(self.zone))))
        return tick.astimezone(ZoneInfo("UTC"))

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Call:
        """Check the arguments, and return what `enqueue` takes. Raises WrongArguments, which shows no value."""
        try:
            given = self._signature.bind(*args, **kwargs).arguments
            model = self._model.model_validate(given)
            arguments = model.model_dump_json()
        except ValidationError as error:
            found = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
            raise WrongArguments(f"{self.name}: {found}") from None
        except (TypeError, ValueError) as error:
            raise WrongArguments(f"{self.name}: {error}") from None
        if not self._reads(arguments, model):
            raise WrongArguments(
                f"{self.name}: its worker would read other arguments than these, as with a secret, an infinity, or a "
                "tuple that is no such type; pass an id, or what JSON can hold."
            )
        if len(arguments) > MOST_BYTES:
            raise WrongArguments(f"{self.name}: arguments of more than 64 KiB; store them, and pass their id.")
        return Call(self, arguments)

    def _reads(self, arguments: str, model: BaseModel) -> bool:
        try:
            return self._model.model_validate_json(arguments) == model
        except ValidationError:
            return False

    def write_result(self, result: Any) -> str:
        """Return a result as JSON. Raises ValueError when it is too large to be kept."""
        text = self._result.dump_json(result, warnings="error").decode()
        if len(text) > MOST_BYTES:
            raise ValueError("a result of more than 64 KiB; store it, and return its id")
        return text

    async def run(self, job: Running, arguments: str) -> str:
        """Run the function; a sync one in a thread of its own, which nobody can stop and no process waits for."""
        model = self._model.model_validate_json(arguments)
        given = {name: getattr(model, name) for name in type(model).model_fields}
        function: Callable[..., Any] = self.function
        if inspect.iscoroutinefunction(function):
            return self.write_result(await function(job, **given))
        job.thread = _in_thread(lambda: function(job, **given))
        return self.write_result(await asyncio.shield(job.thread))


def _in_thread(function: Callable[[], Any]) -> "asyncio.Future[Any]":
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    future.add_done_callback(lambda done: done.cancelled() or done.exception())  # Somebody may have given it up.

    def settle(result: Any, error: BaseException | None) -> None:
        if not future.done():
            future.set_exception(error) if error else future.set_result(result)

    def work() -> None:
        result, failed = None, None
        try:
            result = function()
        except BaseException as error:  # A thread that ends without a word would leave the job running.
            failed = RuntimeError("StopIteration") if isinstance(error, StopIteration) else error
        with suppress(RuntimeError):  # The loop is closed.
            loop.call_soon_threadsafe(settle, result, failed)

    threading.Thread(target=copy_context().run, args=(work,), name="task", daemon=True).start()
    return future


async def run_here(app: FastAPI, call: Call, *, owner: UUID | None = None) -> Any:
    """Run a task here and now and without a job, as a test does. Returns its result, and raises what it raises."""
    results: list[str] = []

    async def end(_: AsyncSession, result: str) -> bool:
        results.append(result)
        return True

    job = Running(id=new_id(), attempt=1, owner_id=owner, app=app, end=end, write=call.task.write_result)
    results.append(await call.task.run(job, call.arguments))
    return json.loads(results[0])


TASKS: dict[str, Task[Any]] = {}


def task(
    *,
    name: str | None = None,
    queue: Queue = Queue.DEFAULT,
    attempts: int = 5,
    backoff: timedelta = timedelta(seconds=5),
    timeout: timedelta = timedelta(minutes=5),
    cron: str | None = None,
    zone: str = "UTC",
) -> Callable[[Callable[Concatenate[Running, P], Any]], Task[P]]:
    """Make a function a task. It may run more than once: what has to happen once happens in `Running.ending`.

    A failed attempt is followed by another one after `backoff`, the next one after twice as long, up to an hour. `cron`
    has five fields, by the clocks of `zone`. The name defaults to the folder of the slice and the function.
    """

    def make(function: Callable[Concatenate[Running, P], Any]) -> Task[P]:
        slice_name = function.__module__.removesuffix(".tasks").rpartition(".")[2]
        made = Task(
            function,
            name=name or f"{slice_name}.{function.__name__}",
            queue=queue,
            attempts=attempts,
            backoff=backoff,
            timeout=timeout,
            cron=cron,
            zone=zone,
        )
        if made.name in TASKS:
            raise TypeError(f"{made.name}: there is such a task already; give this one a name.")
        TASKS[made.name] = made
        return made

    return make
