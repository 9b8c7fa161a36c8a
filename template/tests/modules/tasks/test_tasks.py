from datetime import timedelta
from uuid import UUID, uuid4

from httpx2 import AsyncClient

from app.modules.tasks.service import export
from app.modules.users.models import User
from app.ports.db.database import Database
from app.ports.jobs.models import Job, State
from app.ports.jobs.queue import enqueue
from app.ports.jobs.store import JobStore, Outcome
from app.ports.jobs.tasks import Queue, Running, task

TASKS = "/api/v1/app/tasks"


@task(name="test.double")
async def double(job: Running, number: int) -> dict[str, int]:
    return {"doubled": 2 * number}


async def test_only_its_owner_sees_a_job(client: AsyncClient, database: Database) -> None:
    me = UUID((await client.get("/api/v1/app/users/me")).json()["id"])
    async with database.session() as session:
        other = User(subject="somebody else")
        session.add(other)
        mine = await enqueue(session, double(3), owner=me)
        theirs = await enqueue(session, double(4), owner=other.id)
        nobodys = await enqueue(session, double(5))
    found = (await client.get(f"{TASKS}/{mine}")).json()
    assert (found["id"], found["task"], found["state"]) == (str(mine), "test.double", "queued")
    assert found["result"] is found["error"] is found["finished_at"] is None
    for id in (theirs, nobodys, uuid4()):
        answer = await client.get(f"{TASKS}/{id}")
        assert (answer.status_code, answer.json()["detail"]) == (404, "There is no such task.")


async def test_its_owner_sees_what_a_job_came_to_and_no_more(client: AsyncClient, database: Database) -> None:
    me = UUID((await client.get("/api/v1/app/users/me")).json()["id"])
    async with database.session() as session:
        good = await enqueue(session, double(3), owner=me)
        bad = await enqueue(session, double(4711), owner=me)
    store = JobStore(database, timedelta(seconds=60))
    claimed = {one.id: one for one in await store.claim(Queue.DEFAULT, 2)}
    failed = Outcome(job=claimed[bad], state=State.DEAD, error="The task failed.", traceback="at line 1")
    done = Outcome(job=claimed[good], state=State.SUCCEEDED, result=double.write_result({"doubled": 6}))
    await store.end([done])
    await store.end([failed])
    found = (await client.get(f"{TASKS}/{good}")).json()
    assert (found["state"], found["result"], found["progress"]) == ("succeeded", {"doubled": 6}, 1.0)
    answer = await client.get(f"{TASKS}/{bad}")
    assert (answer.json()["state"], answer.json()["error"]) == ("dead", "The task failed.")
    assert "line 1" not in answer.text
    assert "4711" not in answer.text


async def test_a_user_who_goes_takes_their_jobs_along(database: Database) -> None:
    async with database.session() as session:
        user = User(subject="somebody who goes")
        session.add(user)
        id = await enqueue(session, double(1), owner=user.id)
    async with database.session() as session:
        await session.delete(await session.get_one(User, user.id))
    async with database.session() as session:
        assert await session.get(Job, id) is None


async def test_an_export_holds_ones_jobs_and_neither_arguments_nor_tracebacks(database: Database) -> None:
    async with database.session() as session:
        me, other = User(subject="somebody who asks"), User(subject="somebody else")
        session.add_all([me, other])
        done = await enqueue(session, double(4711), owner=me.id)
        dead = await enqueue(session, double(4711), owner=me.id)
        await enqueue(session, double(4711), owner=other.id)
        await enqueue(session, double(4711))
    store = JobStore(database, timedelta(seconds=60))
    claimed = {one.id: one for one in await store.claim(Queue.DEFAULT, 2)}
    await store.end([Outcome(job=claimed[done], state=State.SUCCEEDED, result='{"doubled": 6}')])
    await store.end([Outcome(job=claimed[dead], state=State.DEAD, error="No.", traceback="at line 4711")])
    async with database.session() as session:
        found = await export(session, me.id)
    assert [(task.id, task.state, task.result, task.error) for task in found] == [
        (done, State.SUCCEEDED, {"doubled": 6}, None),
        (dead, State.DEAD, None, "No."),
    ]
    assert not any("4711" in task.model_dump_json() for task in found)
