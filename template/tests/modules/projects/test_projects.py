from uuid import UUID, uuid4

import pytest
from httpx2 import AsyncClient, Response
from sqlmodel import select

from app.modules.projects.models import Project
from app.modules.projects.service import erase
from app.modules.users.models import User
from app.ports.db.database import Database

PROJECTS = "/api/v1/app/projects"


async def create(client: AsyncClient, name: str, description: str = "") -> Response:
    return await client.post(PROJECTS, json={"name": name, "description": description})


async def test_a_project_is_created_shown_changed_and_deleted(client: AsyncClient, database: Database) -> None:
    created = await create(client, " Women\u200cand \U0001f469\u200d\U0001f4bb ", "Steam.")
    assert created.status_code == 201
    project = created.json()
    assert project["name"] == "Women\u200cand \U0001f469\u200d\U0001f4bb"
    path = f"{PROJECTS}/{project['id']}"
    assert (await client.get(path)).json() == project
    changed = (await client.patch(path, json={"name": "Loom"})).json()
    assert (changed["name"], changed["description"]) == ("Loom", "Steam.")
    assert changed["updated_at"] > project["updated_at"]
    assert (await client.patch(path, json={})).json() == changed
    for nothing in ({"name": None}, {"description": None}, {"name": ""}):
        assert (await client.patch(path, json=nothing)).status_code == 422
    assert (await client.delete(path)).status_code == 204
    for again in (client.get(path), client.patch(path, json={}), client.delete(path)):
        answer = await again
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert (await client.put(path)).headers["allow"] == "DELETE, GET, PATCH"
    assert (await client.get(PROJECTS)).json()["total"] == 0
    async with database.session() as session:
        kept = (await session.exec(select(Project))).one()
        assert kept.deleted_at is not None


async def test_lists_are_paged_newest_first_and_searched(client: AsyncClient) -> None:
    for name in ("one", "two", "50% off", "Thirty_three"):
        await create(client, name, description="ÆTHER")
    page = (await client.get(PROJECTS, params={"size": 3})).json()
    assert [item["name"] for item in page["items"]] == ["Thirty_three", "50% off", "two"]
    assert (page["total"], page["page"], page["size"], page["pages"]) == (4, 1, 3, 2)
    past = (await client.get(PROJECTS, params={"size": 3, "page": 9})).json()
    assert (past["items"], past["total"]) == ([], 4)
    searches = {"TWO": ["two"], "%": ["50% off"], "_": ["Thirty_three"], "\\": [], "x": [], "two ÆTHER": ["two"]}
    for q, names in searches.items():
        found = (await client.get(PROJECTS, params={"q": q})).json()
        assert [item["name"] for item in found["items"]] == names, q


async def test_the_projects_of_others_do_not_exist(client: AsyncClient, database: Database) -> None:
    async with database.session() as session:
        other = User(subject="other")
        session.add(other)
        await session.flush()
        theirs = Project(owner_id=other.id, name="theirs")
        session.add(theirs)
    path = f"{PROJECTS}/{theirs.id}"
    for request in (client.get(path), client.patch(path, json={"name": "mine"}), client.delete(path)):
        assert (await request).status_code == 404
    assert (await client.get(PROJECTS)).json()["items"] == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": " "},
        {"name": "x" * 201},
        {"name": "a\x00b"},
        *({"name": f"a{unseen}b"} for unseen in "\n\x7f\x85\u2028\u2029\u200b\u2060\ufeff\u202e\u2066\u200f"),
        {"name": "x", "owner_id": str(uuid4())},
        {"name": "x", "description": "\x00"},
        {"name": 1},
        [],
        None,
    ],
)
async def test_bad_bodies_are_refused_and_nothing_is_stored(client: AsyncClient, body: object) -> None:
    answer = await client.post(PROJECTS, json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_error")
    assert (await client.get(PROJECTS)).json()["total"] == 0


@pytest.mark.parametrize("query", ["page=0", "page=x", "size=0", "size=101", "page=100001", "q=%00"])
async def test_bad_pages_are_refused(client: AsyncClient, query: str) -> None:
    assert (await client.get(f"{PROJECTS}?{query}")).status_code == 422


async def test_who_goes_takes_all_their_projects_along(client: AsyncClient, database: Database) -> None:
    for name in ("one", "two"):
        created = (await create(client, name)).json()
    await client.delete(f"{PROJECTS}/{created['id']}")
    me = UUID((await client.get("/api/v1/app/users/me")).json()["id"])
    async with database.session() as session:
        await erase(session, uuid4())
        assert len((await session.exec(select(Project))).all()) == 2
        await erase(session, me)
        assert (await session.exec(select(Project))).all() == []
