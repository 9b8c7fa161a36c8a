from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
import time_machine
from fastapi import FastAPI
from httpx2 import AsyncClient
from sqlalchemy.exc import IntegrityError
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.kit import clock
from app.modules.privacy.models import DataExport
from app.modules.privacy.objects import (
    PREFIX,
    key_of,
    prefix_of,
    remove,
    remove_all,
    save,
    sweep_orphans,
    user_of,
)
from app.modules.privacy.service import PrivacyService
from app.modules.privacy.tasks import export
from app.modules.retention.tasks import clean_up
from app.ports.db.database import Database
from app.ports.jobs.models import Job
from app.ports.jobs.tasks import Running, Superseded, run_here, task
from app.ports.storage.local import LocalStorage
from app.ports.storage.storage import StorageUnavailable

ME = "/api/v1/app/users/me"
EXPORT = f"{ME}/export"
DAY = timedelta(days=1)
SignIn = Callable[..., AsyncClient]


async def id_of(client: AsyncClient) -> UUID:
    return UUID((await client.get(ME)).json()["id"])


async def there(storage: LocalStorage) -> set[str]:
    return {stored.key async for stored in storage.objects("", before=clock.now() + DAY)}


async def exports(database: Database) -> dict[str, DataExport]:
    async with database.session() as session:
        return {key_of(row): row for row in (await session.exec(select(DataExport))).all()}


async def jobs(database: Database, task: str) -> list[str]:
    async with database.session() as session:
        return list((await session.exec(select(Job.arguments).where(Job.task == task))).all())


async def put(storage: LocalStorage, key: str) -> None:
    async def blocks() -> AsyncIterator[bytes]:
        yield b"{}"

    await storage.write(key, blocks(), content_type="application/json")


async def bye(_: AsyncSession) -> str:
    return "bye"


@task(name="test.save")
async def save_late(job: Running, user_id: UUID) -> None:
    """Save an export whose user has gone meanwhile."""
    await save(job, b"{}", user_id=user_id, expires_at=clock.now() + DAY)


async def test_an_export_is_one_object_that_no_link_leads_to(
    app: FastAPI, client: AsyncClient, database: Database, storage: LocalStorage
) -> None:
    me = await id_of(client)
    await run_here(app, export(me))
    [first] = await there(storage)
    assert first.startswith(prefix_of(me))
    assert {first} == set(await exports(database))
    assert (await client.get(f"/api/v1/public/storage/{first}", params={"ticket": "x.y"})).status_code == 403
    found = await client.get(EXPORT)
    assert found.json()["user"]["id"] == str(me)
    async with storage.open(first) as blocks:
        assert b"".join([block async for block in blocks]) == found.content
    # A newer one takes its place.
    await run_here(app, export(me))
    assert await jobs(database, "privacy.remove") == ['{"key":"' + first + '"}']
    await run_here(app, remove(first))
    assert await there(storage) == set(await exports(database)) != {first}
    assert (await client.get(EXPORT)).status_code == 200


async def test_objects_go_with_their_user_and_with_their_time(
    app: FastAPI, client: AsyncClient, sign_in: SignIn, database: Database, storage: LocalStorage
) -> None:
    bobs = sign_in(sub="bob", email="bob@example.com", email_verified=True)
    me, bob = await id_of(client), await id_of(bobs)
    await run_here(app, export(me))
    await run_here(app, export(bob))
    await PrivacyService(app).erase(me, bye)
    assert await jobs(database, "privacy.remove_all") == ['{"user_id":"' + str(me) + '"}']
    await run_here(app, remove_all(me))
    [left] = await there(storage)
    assert left.startswith(prefix_of(bob))
    assert (await run_here(app, clean_up()))["exports"] == 0
    async with database.session() as session:
        (await session.exec(select(DataExport))).one().expires_at = clock.now()
    assert (await bobs.get(EXPORT)).status_code == 404
    assert (await run_here(app, clean_up()))["exports"] == 1
    assert (await there(storage), await exports(database)) == (set(), {})


async def test_who_has_gone_meanwhile_leaves_no_object(
    app: FastAPI, client: AsyncClient, database: Database, storage: LocalStorage
) -> None:
    # The row would refer to nobody.
    with pytest.raises(IntegrityError):
        await run_here(app, save_late(uuid4()))
    me = await id_of(client)

    async def lost(_: AsyncSession, __: str) -> bool:
        return False

    # Somebody else has the job by now.
    job = Running(id=uuid4(), attempt=1, owner_id=me, app=app, end=lost, write=save_late.write_result)
    with pytest.raises(Superseded):
        await save(job, b"{}", user_id=me, expires_at=clock.now() + DAY)
    assert (await there(storage), await exports(database)) == (set(), {})


async def test_orphans_are_swept_and_nothing_else(
    app: FastAPI, client: AsyncClient, database: Database, storage: LocalStorage
) -> None:
    me, other, id = await id_of(client), uuid4(), uuid4()
    await run_here(app, export(me))
    [mine] = await there(storage)
    others = {f"files/{me.hex}/{id.hex}", f"{PREFIX}{other.hex}/notes", f"{PREFIX}notes"}
    orphans = {f"{prefix_of(me)}{id.hex}", f"{prefix_of(other)}{id.hex}"}
    for key in others | orphans:
        await put(storage, key)
    # What has just been written may get its row yet.
    assert await run_here(app, sweep_orphans()) == 0
    with time_machine.travel(clock.now() + timedelta(hours=2)):
        assert await run_here(app, sweep_orphans()) == 2
    assert await there(storage) == others | {mine}
    assert (await client.get(EXPORT)).status_code == 200


async def test_an_export_without_its_object_is_not_there(
    app: FastAPI, client: AsyncClient, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run_here(app, export(await id_of(client)))
    [key] = await there(storage)

    def away(key: str) -> None:
        raise StorageUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(storage, "open", away)
        assert (await client.get(EXPORT)).status_code == 503
    await storage.delete(key)
    assert (await client.get(EXPORT)).status_code == 404


def test_only_keys_of_exports_have_a_user() -> None:
    user_id, id = uuid4(), uuid4()
    export = DataExport(id=id, user_id=user_id, expires_at=clock.now())
    assert user_of(key_of(export)) == user_id
    for other in ("", PREFIX, f"{PREFIX}{id.hex}", f"{PREFIX}{user_id}/{id.hex}", f"files/{user_id.hex}/{id.hex}"):
        assert user_of(other) is None
    assert user_of(f"{key_of(export)}/x") is None
