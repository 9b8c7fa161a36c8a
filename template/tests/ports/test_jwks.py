"""What every provider with published keys has to do, beside what all providers have to."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
import time_machine
from fastapi import FastAPI

from app.installed import MODULES
from app.kit.errors import Unavailable
from app.ports.identity import jwks
from app.ports.identity.bearer import Role, Unauthorized
from app.ports.identity.provider import ProviderError, ProviderVerifier
from tests.issuer import new_key, published
from tests.provider import Provider

Make = Callable[..., ProviderVerifier]


async def test_a_token_does_not_say_where_its_key_is(verifier: ProviderVerifier, provider: Provider) -> None:
    claims = jwt.decode(provider.token(), options={"verify_signature": False})
    headers = {"kid": "evil", "jku": f"{provider.url}/evil", "x5u": f"{provider.url}/evil"}
    with pytest.raises(Unauthorized, match="not known"):
        await verifier.verify(jwt.encode(claims, new_key("RS256"), "RS256", headers))
    assert "/evil" not in provider.asked


async def test_clocks_may_differ_a_little(make: Make, provider: Provider) -> None:
    verifier, strict = make(leeway_seconds=30), make(leeway_seconds=0)
    skewed: list[dict[str, Any]] = [
        {"exp": int(time.time()) - 10},
        {"nbf": int(time.time()) + 10},
        {"iat": int(time.time()) + 10},
    ]
    for claims in skewed:
        token = provider.token(**claims)
        assert (await verifier.verify(token)).subject
        with pytest.raises(Unauthorized):
            await strict.verify(token)
    token = provider.token()
    with time_machine.travel(time.time() + 340), pytest.raises(Unauthorized, match="expired"):
        await verifier.verify(token)


async def test_an_unknown_key_makes_one_request_however_many_ask(
    verifier: ProviderVerifier, provider: Provider
) -> None:
    verifier.keys.cooldown = 0.2
    await verifier.verify(provider.token())
    unknown = [provider.token(headers={"kid": f"unknown-{number}"}) for number in range(50)]
    await asyncio.sleep(0.25)
    provider.delay = 0.05
    found = await asyncio.gather(*map(verifier.verify, unknown), return_exceptions=True)
    assert {type(one) for one in found} == {Unauthorized}
    assert provider.asked[provider.KEYS] == 2
    for token in unknown:
        with pytest.raises(Unauthorized, match="not known"):
            await verifier.verify(token)
    assert provider.asked[provider.KEYS] == 2


async def test_rotated_keys_are_found_by_all_who_come_at_once_and_old_ones_end(
    verifier: ProviderVerifier, provider: Provider
) -> None:
    verifier.keys.cooldown = 0.1
    old = provider.token()
    await verifier.verify(old)
    provider.rotate("second")
    await asyncio.sleep(0.15)
    provider.delay = 0.05
    tokens = [provider.token(sub=provider.person(str(who))) for who in range(20)]
    assert len({found.subject for found in await asyncio.gather(*map(verifier.verify, tokens))}) == 20
    assert provider.asked[provider.KEYS] == 2
    with pytest.raises(Unauthorized, match="not known"):
        await verifier.verify(old)
    provider.rotate("second")
    await asyncio.sleep(0.15)
    await verifier.keys.refresh()
    with pytest.raises(Unauthorized, match="signature"):
        await verifier.verify(tokens[-1])


async def test_keys_are_fetched_anew_behind_the_back_of_requests(
    verifier: ProviderVerifier, provider: Provider
) -> None:
    old = provider.token()
    await verifier.verify(old)
    provider.rotate("second")
    verifier.keys.lifetime = verifier.keys.cooldown = 0
    provider.delay = 0.05
    assert (await verifier.verify(old)).subject
    verifier.keys.lifetime = 60
    await verifier.keys.refresh()
    with pytest.raises(Unauthorized, match="not known"):
        await verifier.verify(old)


async def test_while_the_provider_is_away_known_keys_work_and_others_cannot_be_told(
    make: Make, provider: Provider
) -> None:
    warm, cold = make(), make()
    token = provider.token()
    await warm.verify(token)
    provider.stop()
    warm.keys.cooldown = warm.keys.lifetime = cold.keys.cooldown = 0
    for _ in range(3):
        assert (await warm.verify(token)).subject
        with pytest.raises(Unavailable, match="cannot be reached"):
            await warm.verify(provider.token(headers={"kid": "new"}))
        with pytest.raises(Unavailable, match="cannot be reached"):
            await cold.verify(token)
        with pytest.raises(Unauthorized):
            await cold.verify("garbage")
    provider.start()
    assert (await cold.verify(token)).subject
    with pytest.raises(Unauthorized, match="not known"):
        await warm.verify(provider.token(headers={"kid": "new"}))


async def test_who_gives_up_waiting_does_not_take_the_keys_from_others(
    verifier: ProviderVerifier, provider: Provider
) -> None:
    provider.delay = 0.1
    hasty, patient = (asyncio.create_task(verifier.verify(provider.token())) for _ in range(2))
    await asyncio.sleep(0.02)
    hasty.cancel()
    assert (await patient).subject
    assert provider.asked[provider.KEYS] == 1


async def test_a_provider_that_never_ends_its_answer_is_given_up(
    verifier: ProviderVerifier, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.ports.identity.provider.FETCH_TIMEOUT_SECONDS", 0.2)
    provider.drip = 0.05
    with pytest.raises(Unavailable, match="cannot be reached"):
        await verifier.verify(provider.token())
    assert "takes too long" in str(verifier.keys.failure)
    provider.drip = 0


async def test_a_token_without_a_key_id_needs_a_set_of_one_key(verifier: ProviderVerifier, provider: Provider) -> None:
    verifier.keys.cooldown = 0
    claims = jwt.decode(provider.token(), options={"verify_signature": False})
    nameless = jwt.encode(claims, provider.keys["first"][1], "RS256")
    assert (await verifier.verify(nameless)).subject
    provider.keys["second"] = ("RS256", new_key("RS256"))
    await verifier.keys.refresh()
    with pytest.raises(Unauthorized, match="not known"):
        await verifier.verify(nameless)


async def test_keys_that_are_not_for_signatures_are_none(verifier: ProviderVerifier, provider: Provider) -> None:
    key = provider.keys["first"][1]
    secret = "c2VjcmV0" * 8
    for unusable in (
        {"kty": "oct", "k": secret, "kid": "first"},
        published(key, kid="first", use="enc"),
        {**published(key, kid="first"), "key_ops": ["encrypt"]},
    ):
        provider.pages[provider.KEYS] = 200, json.dumps({"keys": [unusable]}).encode()
        verifier.keys.cooldown = 0
        with pytest.raises(Unavailable):
            await verifier.verify(provider.token())
    for wrong in (published(key, kid="first", alg="RS512"), {**published(key, kid="first"), "n": "!"}):
        provider.pages[provider.KEYS] = 200, json.dumps({"keys": [wrong]}).encode()
        with pytest.raises(Unauthorized, match="not known"):
            await verifier.verify(provider.token())


@pytest.mark.parametrize(
    ("claims", "role"),
    [
        ({}, Role.USER),
        ({"groups": ["staff"]}, Role.USER),
        ({"groups": ["staff", "root"]}, Role.ADMIN),
        ({"groups": "root"}, Role.ADMIN),
        ({"groups": "root staff"}, Role.USER),
        ({"groups": "not root"}, Role.USER),
        ({"groups": {"root": False}}, Role.USER),
        ({"groups": [["root"]]}, Role.USER),
        ({"groups": ["ROOT"]}, Role.USER),
        ({"groups": ["guests", "staff"]}, Role.READONLY),
        ({"groups": ["guests", "root"]}, Role.ADMIN),
        ({"role": "admin", "roles": ["root"]}, Role.USER),
    ],
)
async def test_roles_come_from_the_claim_that_is_named(
    make: Make, provider: Provider, claims: dict[str, Any], role: Role
) -> None:
    settings = {"admin_role": "root", "readonly_role": "guests"}
    plain = await make(roles_claim="groups", **settings).verify(provider.token(**claims))
    assert plain.role is role
    nested = await make(roles_claim="realm.access", **settings).verify(
        provider.token(realm={"access": claims.get("groups")})
    )
    assert nested.role is role


async def test_the_health_check_asks_once_and_tells_what_is_wrong(
    verifier: ProviderVerifier, provider: Provider
) -> None:
    check = next(check.check for module in MODULES for check in module.health_checks if check.name == "identity")
    app = FastAPI()
    app.state.verifier = verifier
    verifier.keys.cooldown = 0
    for _ in range(3):
        assert await check(app) is None
    assert provider.asked[provider.KEYS] == 1
    provider.stop()
    verifier.keys.lifetime = -1
    for _ in range(2):
        with pytest.raises(ProviderError, match="cannot be reached"):
            await check(app)
    provider.start()
    verifier.keys.lifetime = 60
    assert await check(app) is None
    verifier.issuer = ""
    assert str(await check(app)).startswith("nobody can sign in yet")
    with pytest.raises(Unauthorized, match="no provider of identity is set"):
        await verifier.verify(provider.token())


def test_no_shared_secret_is_among_the_keys_that_are_published() -> None:
    assert not [name for name in jwks.ALGORITHMS if name.startswith("HS") or name == "none"]
