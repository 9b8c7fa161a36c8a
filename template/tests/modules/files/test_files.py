import hashlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import time_machine
from fastapi import FastAPI
from httpx2 import AsyncClient, Response
from sqlmodel import select, update

from app.kit import clock
from app.kit.settings import SettingsError, load
from app.modules.files.kinds import HEAD_BYTES, KINDS, looks_like, may_be_called, may_be_shown
from app.modules.files.models import File, id_of, key_of
from app.modules.files.service import erase, export
from app.modules.files.settings import FileSettings
from app.modules.files.tasks import remove, remove_all, sweep, sweep_orphans
from app.modules.retention.tasks import clean_up
from app.modules.users.models import User
from app.ports.db.database import Database
from app.ports.jobs.models import Job
from app.ports.jobs.tasks import TASKS, Running
from app.ports.storage.local import LocalStorage
from tests.modules.files.samples import BOMB, GOOD, HTML, OFFICE, PNG, POLYGLOTS, SVG, WRONG, ZIP
from tests.ports.storage.contract import content_of, later, pieces, there

FILES = "/api/v1/app/files"
SHA256 = hashlib.sha256(PNG).hexdigest()
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
Configure = Callable[..., None]


async def begin(client: AsyncClient, content: bytes = PNG, **changes: Any) -> Response:
    announced = {"name": "a.png", "size": len(content), "content_type": "image/png", **changes}
    return await client.post(f"{FILES}/upload-url", json=announced)


async def put(client: AsyncClient, begun: Response, content: bytes = PNG) -> Response:
    assert begun.status_code == 201, begun.text
    upload = begun.json()["upload"]
    return await client.request(upload["method"], upload["url"], content=content, headers=upload["headers"])


async def confirm(client: AsyncClient, id: str) -> Response:
    return await client.post(f"{FILES}/confirm", json={"id": id})


async def upload(client: AsyncClient, content: bytes = PNG, **changes: Any) -> str:
    """Upload a file, and leave it to be confirmed."""
    begun = await begin(client, content, **changes)
    assert (await put(client, begun, content)).status_code == 201
    return str(begun.json()["file"]["id"])


async def keep(client: AsyncClient, content: bytes = PNG, **changes: Any) -> dict[str, Any]:
    """Upload a file and confirm it."""
    done = await confirm(client, await upload(client, content, **changes))
    assert done.status_code == 200, done.text
    file: dict[str, Any] = done.json()
    return file


async def fetch(client: AsyncClient, id: str, **query: Any) -> Response:
    link = await client.get(f"{FILES}/{id}/download-url", params=query)
    assert link.status_code == 200, link.text
    return await client.get(link.json()["url"])


async def rows(database: Database) -> dict[str, File]:
    async with database.session() as session:
        return {str(file.id): file for file in (await session.exec(select(File))).all()}


async def let_links_run_out(database: Database) -> None:
    async with database.session() as session:
        await session.exec(update(File).values(upload_until=clock.now() - timedelta(seconds=1)))


async def jobs(database: Database) -> list[tuple[str, str]]:
    async with database.session() as session:
        return [(job.task, job.arguments) for job in (await session.exec(select(Job).order_by(Job.task))).all()]


async def run(app: FastAPI, call: Any) -> None:
    """Run a task as a worker does."""

    async def end(*_: object) -> bool:
        return True

    await call.task.run(Running(id=uuid4(), attempt=1, owner_id=None, app=app, end=end), call.arguments)


async def my_id(client: AsyncClient) -> UUID:
    return UUID((await client.get("/api/v1/app/users/me")).json()["id"])


async def file_of_somebody_else(database: Database, storage: LocalStorage, **fields: Any) -> File:
    async with database.session() as session:
        other = User(subject=f"other {uuid4()}")
        session.add(other)
        await session.flush()
        values = {
            "name": "theirs.png",
            "content_type": "image/png",
            "size": len(PNG),
            "upload_until": later(),
            **fields,
        }
        theirs = File(owner_id=other.id, **values)
        session.add(theirs)
    await storage.write(theirs.key, pieces(PNG), content_type="image/png")
    return theirs


async def test_a_file_is_uploaded_confirmed_listed_downloaded_and_deleted(
    client: AsyncClient, app: FastAPI, database: Database, storage: LocalStorage
) -> None:
    begun = await begin(client, name=" Cafe\u0301.png ", sha256=SHA256, content_type="Image/PNG")
    file, link = begun.json()["file"], begun.json()["upload"]
    assert (file["name"], file["state"], link["method"]) == ("Caf\u00e9.png", "pending", "PUT")
    assert link["url"].startswith("http://test/api/v1/public/storage/files/")
    path = f"{FILES}/{file['id']}"
    assert (await client.get(path)).json() == file
    assert (await client.get(FILES)).json()["total"] == 0
    assert (await put(client, begun)).status_code == 201
    assert (await client.get(FILES)).json()["total"] == 0
    live = (await confirm(client, file["id"])).json()
    assert (live["state"], live["size"], live["sha256"]) == ("live", len(PNG), SHA256)
    assert (await client.get(path)).json() == live
    assert (await client.get(FILES)).json()["items"] == [live]
    answer = await fetch(client, file["id"])
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, PNG, "image/png")
    assert answer.headers["content-disposition"] == "attachment; filename=\"Cafe.png\"; filename*=UTF-8''Caf%C3%A9.png"
    assert (await client.delete(path)).status_code == 204
    for again in (
        client.get(path),
        client.get(f"{path}/download-url"),
        client.delete(path),
        confirm(client, file["id"]),
    ):
        gone = await again
        assert (gone.status_code, gone.json()["detail"]) == (404, "There is no such file.")
    assert (await client.get(FILES)).json()["total"] == 0
    kept = (await rows(database))[file["id"]]
    assert kept.deleted_at is not None
    # The content goes when the deletion is committed, and not before.
    assert await storage.stat(kept.key) is not None
    assert await jobs(database) == [("files.remove", '{"key":"' + kept.key + '"}')]
    await run(app, remove(kept.key))
    assert await storage.stat(kept.key) is None
    # Nor does the link bring it back.
    assert (await put(client, begun)).status_code == 409


async def test_lists_are_paged_newest_first_and_searched(client: AsyncClient) -> None:
    for name in ("one.txt", "two.txt", "50% off.txt", "Thirty_three.txt"):
        await keep(client, b"x", name=name, content_type="text/plain")
    await upload(client, b"x", name="pending.txt", content_type="text/plain")
    page = (await client.get(FILES, params={"size": 3})).json()
    assert [item["name"] for item in page["items"]] == ["Thirty_three.txt", "50% off.txt", "two.txt"]
    assert (page["total"], page["page"], page["size"], page["pages"]) == (4, 1, 3, 2)
    for q, names in {"TWO": ["two.txt"], "%": ["50% off.txt"], "_": ["Thirty_three.txt"], "\\": [], "pend": []}.items():
        found = (await client.get(FILES, params={"q": q})).json()
        assert [item["name"] for item in found["items"]] == names, q


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_what_it_says_is_kept_and_served_as_that(client: AsyncClient, kind: str) -> None:
    name, content = GOOD[kind]
    file = await keep(client, content, name=name, content_type=kind)
    answer = await fetch(client, file["id"], inline=True)
    assert answer.content == content
    assert answer.headers["content-type"].split(";")[0] == kind
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    shown = answer.headers["content-disposition"].startswith("inline")
    assert shown is may_be_shown(kind)
    saved = await fetch(client, file["id"])
    assert saved.headers["content-disposition"].startswith("attachment")


async def test_each_type_is_told_from_the_others() -> None:
    contains = {("application/zip", f"{OFFICE}.{kind}") for kind in (
        "wordprocessingml.document", "spreadsheetml.sheet", "presentationml.presentation",
    )}  # fmt: skip
    office = {(one, two) for _, one in contains for _, two in contains}
    for kind, entry in KINDS.items():
        for other, (_, content) in GOOD.items():
            expected = kind == other or (kind, other) in contains
            if entry.begins is None:
                expected = KINDS[other].begins is None
            if (kind, other) not in office:
                assert looks_like(kind, content) is expected, (kind, other)


async def test_the_beginning_of_a_long_text_is_a_text() -> None:
    text = ("x" * (HEAD_BYTES - 1) + "日本").encode()
    assert looks_like("text/plain", text[:HEAD_BYTES])
    assert not looks_like("text/plain", text[: HEAD_BYTES - 10] + b"\xff" * 10)
    assert not looks_like("text/plain", "日".encode()[:2])


# 1. What is announced.
NAMES = {
    "folder up": "../../etc/passwd",
    "folder up for Windows": "..\\..\\boot.ini",
    "absolute": "/etc/passwd",
    "folder": "a/b.png",
    "null byte": "a.png\x00.exe",
    "new header": "a.png\r\nSet-Cookie: x=y",
    "new line": "a\n.png",
    "escape": "\x1b[2Ja.png",
    "turned around": "a\u202egnp.exe",
    "turned around in another way": "a\u2066gnp.exe\u2069",
    "nothing to be seen": "a\u200b.png",
    "end of a paragraph": "a\u2029.png",
    "dots": "..",
    "a dot": ".",
    "hidden": ".htaccess",
    "dot at the end": "a.exe.",
    "nothing": "",
    "blank": "   ",
    "huge": "a" * 197 + ".png",
    "huge in bytes": "日" * 90 + ".png",
    "half a character": "\ud800.png",
    "second ending": "a.png.exe",
    "second ending of a page": "a.png.html",
    "other ending": "a.svg",
    "ending in capitals": "a.HTML",
    "ending of another type": "a.pdf",
    "ending with a blank": "a.png .exe",
    "ending that looks like one": "a.pn\u0261",
}


@pytest.mark.parametrize("case", NAMES)
async def test_a_name_that_is_more_than_a_name_is_refused(client: AsyncClient, database: Database, case: str) -> None:
    body = '{"name": %s, "size": 1, "content_type": "image/png"}'
    quoted = "".join(f"\\u{ord(one):04x}" if ord(one) < 0x10000 else one for one in NAMES[case])
    answer = await client.post(
        f"{FILES}/upload-url", content=body % f'"{quoted}"', headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422, answer.text
    assert await rows(database) == {}


@pytest.mark.parametrize(
    "name", ["a", "photo.final.png", "日本語.PNG", "a b (1).png", "Straße.png", "x" * 196 + ".png"]
)
async def test_a_name_of_its_own_kind_is_taken(client: AsyncClient, name: str) -> None:
    assert (await begin(client, name=name)).json()["file"]["name"] == name


ANNOUNCED: dict[str, dict[str, Any]] = {
    "too large": {"size": 104_857_601},
    "far too large": {"size": 2**63},
    "less than nothing": {"size": -1},
    "half a byte": {"size": 1.5},
    "no number": {"size": "many"},
    "page": {"name": "a.html", "content_type": "text/html"},
    "picture with scripts": {"name": "a.svg", "content_type": "image/svg+xml"},
    "script": {"name": "a.js", "content_type": "text/javascript"},
    "program": {"name": "a.exe", "content_type": "application/x-msdownload"},
    "anything": {"name": "a", "content_type": "application/octet-stream"},
    "any picture": {"content_type": "image/*"},
    "no type": {"content_type": ""},
    "half a type": {"content_type": "image"},
    "type with a parameter": {"content_type": "image/png; x=y"},
    "type with a header": {"content_type": "image/png\r\nX-Y: z"},
    "two types": {"content_type": "image/png,text/html"},
    "checksum of another kind": {"sha256": "0" * 32},
    "no checksum": {"sha256": "z" * 64},
    "somebody else's": {"owner_id": str(UUID(int=1))},
    "a key of one's own": {"key": "files/x/y"},
    "an id of one's own": {"id": str(uuid4())},
    "live at once": {"state": "live"},
}


@pytest.mark.parametrize("case", ANNOUNCED)
async def test_what_is_not_taken_is_refused_before_it_comes(client: AsyncClient, database: Database, case: str) -> None:
    answer = await begin(client, **ANNOUNCED[case])
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] in {"file_not_allowed", "validation_error"}
    assert await rows(database) == {}


# 2. What comes.
@pytest.mark.parametrize("case", WRONG)
async def test_what_is_something_else_is_removed(
    client: AsyncClient, app: FastAPI, database: Database, storage: LocalStorage, case: str
) -> None:
    kind, content = WRONG[case]
    id = await upload(client, content, name="a", content_type=kind)
    answer = await confirm(client, id)
    assert (answer.status_code, answer.json()["code"]) == (422, "upload_rejected")
    assert answer.json()["detail"] == f"The content is not of the type {kind}."
    assert (await client.get(f"{FILES}/{id}")).status_code == 404
    key = (await rows(database))[id].key
    assert await jobs(database) == [("files.remove", '{"key":"' + key + '"}')]
    await run(app, remove(key))
    assert await storage.stat(key) is None
    assert (await confirm(client, id)).status_code == 404


@pytest.mark.parametrize("case", POLYGLOTS)
async def test_what_is_several_things_is_served_as_what_it_was_said_to_be(client: AsyncClient, case: str) -> None:
    kind, name, content = POLYGLOTS[case]
    file = await keep(client, content, name=name, content_type=kind)
    for inline in (True, False):
        headers = (await fetch(client, file["id"], inline=inline)).headers
        assert headers["content-type"].split(";")[0] == kind
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "sandbox" in headers["content-security-policy"]


async def test_an_archive_is_kept_as_it_came(client: AsyncClient) -> None:
    assert len(BOMB) < 50_000
    file = await keep(client, BOMB, name="a.zip", content_type="application/zip")
    assert file["size"] == len(BOMB)
    assert (await fetch(client, file["id"])).content == BOMB


@pytest.mark.parametrize("kind", ["text/html", "image/svg+xml", "text/javascript", "application/xhtml+xml"])
async def test_what_may_hold_scripts_is_only_saved(client: AsyncClient, configure: Configure, kind: str) -> None:
    configure(files_types=f"{kind}, image/png")
    file = await keep(client, SVG if "svg" in kind else HTML, name="a.html", content_type=kind)
    answer = await fetch(client, file["id"], inline=True)
    assert answer.headers["content-disposition"].startswith("attachment; ")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    "change", [PNG + b"x", PNG[:-1], b"", PNG[:-1] + b"x"], ids=["longer", "shorter", "no", "other"]
)
async def test_what_was_not_announced_is_not_taken(
    client: AsyncClient, database: Database, storage: LocalStorage, change: bytes
) -> None:
    begun = await begin(client, sha256=SHA256)
    assert (await put(client, begun, change)).status_code in {400, 413, 422}
    id = begun.json()["file"]["id"]
    assert await storage.stat((await rows(database))[id].key) is None
    waits = await confirm(client, id)
    assert (waits.status_code, waits.json()["code"]) == (409, "not_uploaded")
    # It may be sent again as it should be.
    assert (await put(client, begun)).status_code == 201
    assert (await confirm(client, id)).status_code == 200


class Careless(LocalStorage):
    """A storage that binds nothing and knows nothing, as some do."""

    async def stat(self, key: str) -> Any:
        stored = await super().stat(key)
        return None if stored is None else type(stored)(key=key, size=stored.size, modified_at=stored.modified_at)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (PNG + b"x", f"{len(PNG) + 1} bytes were uploaded, and {len(PNG)} were announced."),
        (PNG[:-1] + b"x", "The content has another SHA-256 checksum than was announced."),
        (HTML.ljust(len(PNG))[: len(PNG)], "The content is not of the type image/png."),
        (PNG, None),
    ],
    ids=["size", "checksum", "type", "good"],
)
async def test_what_a_storage_does_not_bind_is_found_out(
    client: AsyncClient, app: FastAPI, database: Database, content: bytes, told: str | None
) -> None:
    app.state.storage = careless = Careless()
    begun = (await begin(client, sha256=SHA256)).json()["file"]["id"]
    key = (await rows(database))[begun].key
    await careless.write(key, pieces(content), content_type="image/png")
    answer = await confirm(client, begun)
    assert (answer.status_code, answer.json().get("detail")) == ((422, told) if told else (200, None))
    assert (await rows(database))[begun].deleted_at is None if told is None else True
    assert len(await jobs(database)) == (1 if told else 0)


async def test_what_was_uploaded_as_something_else_is_found_out(
    client: AsyncClient, database: Database, storage: LocalStorage
) -> None:
    id = (await begin(client)).json()["file"]["id"]
    await storage.write((await rows(database))[id].key, pieces(PNG), content_type="text/html")
    answer = await confirm(client, id)
    assert (answer.status_code, "text/html" in answer.json()["detail"]) == (422, True)


# 3. Who and when.
async def test_the_files_of_others_do_not_exist(client: AsyncClient, database: Database, storage: LocalStorage) -> None:
    pending = await file_of_somebody_else(database, storage)
    live = await file_of_somebody_else(database, storage, state="live")
    for theirs in (pending, live):
        path = f"{FILES}/{theirs.id}"
        answers = [
            await client.get(path),
            await client.delete(path),
            await client.get(f"{path}/download-url"),
            await confirm(client, str(theirs.id)),
        ]
        assert {answer.status_code for answer in answers} == {404}
        assert {answer.json()["detail"] for answer in answers} == {"There is no such file."}
    assert (await client.get(FILES)).json()["items"] == []
    assert {file.deleted_at for file in (await rows(database)).values()} == {None}
    assert await storage.stat(live.key) is not None


async def test_confirming_twice_is_confirming_once(client: AsyncClient) -> None:
    file = await keep(client)
    assert (await confirm(client, file["id"])).json() == file
    assert (await client.get(FILES)).json()["items"] == [file]


async def test_nothing_is_confirmed_or_downloaded_before_it_is_there(client: AsyncClient) -> None:
    id = (await begin(client)).json()["file"]["id"]
    for answer in (await confirm(client, id), await client.get(f"{FILES}/{id}/download-url")):
        assert (answer.status_code, answer.json()["code"]) == (409, "not_uploaded")
    await client.delete(f"{FILES}/{id}")
    assert (await confirm(client, id)).status_code == 404


@pytest.mark.parametrize("id", ["x", "", None, 1, "../x", "00000000-0000-0000-0000-000000000000\x00"])
async def test_what_is_no_id_confirms_nothing(client: AsyncClient, id: Any) -> None:
    assert (await client.post(f"{FILES}/confirm", json={"id": id})).status_code == 422


async def test_a_link_runs_out_and_its_file_may_still_be_confirmed(client: AsyncClient, database: Database) -> None:
    begun, uploaded = await begin(client), await upload(client)
    with time_machine.travel(clock.now() + HOUR):
        assert (await put(client, begun)).status_code == 403
    await let_links_run_out(database)
    assert (await confirm(client, uploaded)).status_code == 200


async def test_nobody_keeps_more_than_their_share(
    client: AsyncClient, database: Database, configure: Configure
) -> None:
    configure(files_quota_bytes=str(3 * len(PNG)), files_pending_most="2")
    first, _ = await keep(client), await upload(client)
    too_much = await begin(client, size=len(PNG) + 1)
    assert (too_much.status_code, too_much.json()["code"]) == (409, "quota_exceeded")
    assert f"room for {len(PNG)} more bytes" in too_much.json()["detail"]
    assert (await begin(client)).status_code == 201
    too_many = await begin(client, size=0)
    assert (too_many.status_code, "pending" in too_many.json()["detail"]) == (409, True)
    # What is deleted still counts as long as its link could bring it back.
    await client.delete(f"{FILES}/{first['id']}")
    assert (await begin(client)).status_code == 409
    await let_links_run_out(database)
    assert (await begin(client)).status_code == 201
    assert (await begin(client)).status_code == 409


async def test_nobody_keeps_files_without_number(client: AsyncClient, database: Database, configure: Configure) -> None:
    configure(files_most="2")
    empty = {"name": "a.txt", "content_type": "text/plain"}
    first = await keep(client, b"", **empty)
    await keep(client, b"", **empty)
    too_many = await begin(client, b"", **empty)
    assert (too_many.status_code, too_many.json()["code"]) == (409, "quota_exceeded")
    assert "room for 2 files" in too_many.json()["detail"]
    await client.delete(f"{FILES}/{first['id']}")
    await let_links_run_out(database)
    assert (await begin(client, b"", **empty)).status_code == 201


# 4. What is left over.
async def test_what_nobody_confirms_is_removed(
    client: AsyncClient, app: FastAPI, database: Database, storage: LocalStorage
) -> None:
    kept, forgotten, announced = await keep(client), await upload(client), (await begin(client)).json()["file"]["id"]
    found = await rows(database)
    await run(app, clean_up())
    assert (await client.get(f"{FILES}/{forgotten}")).status_code == 200
    with time_machine.travel(clock.now() + 7 * HOUR):
        await run(app, clean_up())
        await run(app, sweep())
    swept = await rows(database)
    for id in (forgotten, announced):
        assert (await client.get(f"{FILES}/{id}")).status_code == 404
        assert swept[id].removed_at is not None
        assert await storage.stat(found[id].key) is None
    assert (await client.get(FILES)).json()["items"] == [kept]
    assert await content_of(storage, found[kept["id"]].key) == PNG


async def test_what_a_link_brings_after_a_deletion_is_removed_again(
    client: AsyncClient, app: FastAPI, database: Database, storage: LocalStorage
) -> None:
    file = await keep(client)
    await client.delete(f"{FILES}/{file['id']}")
    key = (await rows(database))[file["id"]].key
    await run(app, sweep())
    # While the link is good, it is not done.
    assert (await rows(database))[file["id"]].removed_at is None
    with time_machine.travel(clock.now() + 2 * HOUR):
        await run(app, sweep())
        assert await storage.stat(key) is None
        assert (await rows(database))[file["id"]].removed_at is not None
    with time_machine.travel(clock.now() + 31 * DAY):
        await run(app, clean_up())
        assert await rows(database) == {}


async def test_what_belongs_to_no_file_is_removed(
    client: AsyncClient, app: FastAPI, database: Database, storage: LocalStorage
) -> None:
    kept, pending = await keep(client), await upload(client)
    keys = {(await rows(database))[id].key for id in (kept["id"], pending)}
    orphans = {key_of(uuid4(), uuid4()) for _ in range(3)}
    others = {"reports/1", "files/x", "files/x/y/z"}
    for key in orphans | others:
        await storage.write(key, pieces(b"x"), content_type="text/plain")
    await run(app, sweep_orphans())
    assert await there(storage, "", clock.now() + DAY) == keys | orphans | others
    with time_machine.travel(clock.now() + 8 * DAY):
        await run(app, sweep_orphans())
        assert await there(storage, "", clock.now() + DAY) == keys | others


async def test_only_keys_of_files_have_an_id() -> None:
    owner, id = uuid4(), uuid4()
    assert id_of(key_of(owner, id)) == id
    for other in (
        "",
        "files/",
        f"files/{id.hex}",
        f"files/{owner}/{id}",
        f"other/{owner.hex}/{id.hex}",
        f"{key_of(owner, id)}/x",
    ):
        assert id_of(other) is None


async def test_who_goes_takes_all_their_files_along(
    client: AsyncClient, app: FastAPI, database: Database, storage: LocalStorage
) -> None:
    await keep(client)
    await upload(client)
    await client.delete(f"{FILES}/{(await keep(client))['id']}")
    theirs = await file_of_somebody_else(database, storage, state="live")
    me = await my_id(client)
    async with database.session() as session:
        await erase(session, me)
    assert set(await rows(database)) == {str(theirs.id)}
    assert ("files.remove_all", '{"owner":"' + str(me) + '"}') in await jobs(database)
    await run(app, remove_all(me))
    assert await there(storage, "", clock.now() + DAY) == {theirs.key}


async def test_an_export_lists_files_and_holds_no_way_to_them(
    client: AsyncClient, database: Database, storage: LocalStorage
) -> None:
    live, pending, deleted = (await keep(client))["id"], await upload(client), (await keep(client))["id"]
    await client.delete(f"{FILES}/{deleted}")
    await file_of_somebody_else(database, storage, state="live")
    me = await my_id(client)
    async with database.session() as session:
        found = await export(session, me)
    assert [str(file.id) for file in found] == [live, pending, deleted]
    assert [file.state for file in found] == ["live", "pending", "live"]
    assert not any("ticket" in file.model_dump_json() or me.hex in file.model_dump_json() for file in found)


async def test_the_sweeps_come_by_themselves() -> None:
    assert TASKS["files.sweep"].cron
    assert TASKS["files.sweep_orphans"].cron


@pytest.mark.parametrize("types", ["image", "image/png, x", "image/png; q=1", "IMAGE/PNG"])
async def test_a_setting_of_types_that_are_none_is_refused(configure: Configure, types: str) -> None:
    configure(files_types=types)
    with pytest.raises(SettingsError, match="FILES_TYPES"):
        load(FileSettings)


async def test_endings_are_those_of_the_type() -> None:
    assert may_be_called("a.tar.gz", "application/gzip")
    assert may_be_called("a.glb", "model/gltf-binary")
    assert not may_be_called("a.docx", "application/zip")
    assert looks_like("model/gltf-binary", ZIP)
    assert not may_be_shown("model/gltf-binary")
