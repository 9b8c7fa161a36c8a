from httpx2 import AsyncClient

ME = "/api/v1/app/users/me"


async def test_the_first_request_makes_the_user_and_later_ones_find_it(client: AsyncClient) -> None:
    first = await client.get(ME)
    assert first.status_code == 200
    assert (await client.get(ME)).json() == first.json()


async def test_users_change_their_name_and_nothing_else(client: AsyncClient) -> None:
    changed = await client.patch(ME, json={"display_name": "  Ada  "})
    assert changed.json()["display_name"] == "Ada"
    assert (await client.get(ME)).json()["display_name"] == "Ada"
    refused = await client.patch(ME, json={"display_name": "Eve", "email": "eve@example.com"})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "body.email")
    assert (await client.get(ME)).json()["display_name"] == "Ada"
    assert (await client.patch(ME, json={"display_name": None})).json()["display_name"] is None
