import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import jwt
import pytest
import time_machine
from fastapi import FastAPI

from app.kit.errors import Unavailable
from app.kit.settings import SettingsError, forget, load
from app.ports.identity import jwks
from app.ports.identity.bearer import Role, Unauthorized
from app.ports.identity.oidc import MOST_BYTES, OidcSettings, OidcVerifier, ProviderError, check
from tests.issuer import AUDIENCE, DISCOVERY, Issuer, new_key, published

Make = Callable[..., OidcVerifier]


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as issuer:
        yield issuer


@pytest.fixture
async def make(issuer: Issuer) -> AsyncIterator[Make]:
    made: list[OidcVerifier] = []

    def verifier(**settings: Any) -> OidcVerifier:
        made.append(OidcVerifier(OidcSettings(oidc_issuer=issuer.url, oidc_audience=AUDIENCE, **settings)))
        return made[-1]

    yield verifier
    for one in made:
        await one.keys.close()


@pytest.fixture
def verifier(make: Make) -> OidcVerifier:
    return make()


async def test_a_good_token_says_who_is_calling(verifier: OidcVerifier, issuer: Issuer) -> None:
    claims: dict[str, Any] = {
        "email": "ada@example.com",
        "email_verified": True,
        "name": "Ada",
        "jti": "7",
        "aud": ["x", AUDIENCE],
    }
    found = await verifier.verify(issuer.token(**claims))
    assert found.subject == f"{issuer.url}|ada"
    assert (found.email, found.email_verified, found.name, found.token_id) == ("ada@example.com", True, "Ada", "7")
    assert found.role is None
    assert found.issued_at is not None
    assert (found.expires_at - found.issued_at).total_seconds() == found.claims["exp"] - found.claims["iat"] == 300
    assert issuer.asked == {DISCOVERY: 1, "/keys": 1}
    bare = await verifier.verify(issuer.token(without="iat", email_verified=True))
    assert (bare.email, bare.email_verified, bare.name, bare.issued_at) == (None, False, None, None)
    assert sum(issuer.asked.values()) == 2


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256"])
async def test_keys_of_every_kind_verify(make: Make, issuer: Issuer, algorithm: str) -> None:
    verifier = make(oidc_algorithms="RS256,PS256,ES256")
    issuer.rotate("other", algorithm)
    assert (await verifier.verify(issuer.token())).subject
    narrow = make(oidc_algorithms="RS512")
    with pytest.raises(Unauthorized, match="signed in a way"):
        await narrow.verify(issuer.token())


async def test_a_token_does_not_say_where_its_key_is(verifier: OidcVerifier, issuer: Issuer) -> None:
    claims = jwt.decode(issuer.token(), options={"verify_signature": False})
    headers = {"kid": "evil", "jku": f"{issuer.url}/evil", "x5u": f"{issuer.url}/evil"}
    with pytest.raises(Unauthorized, match="not known"):
        await verifier.verify(jwt.encode(claims, new_key("RS256"), "RS256", headers))
    assert "/evil" not in issuer.asked


async def test_clocks_may_differ_a_little(make: Make, issuer: Issuer) -> None:
    verifier, strict = make(oidc_leeway_seconds=30), make(oidc_leeway_seconds=0)
    skewed: list[dict[str, Any]] = [
        {"exp": int(time.time()) - 10},
        {"nbf": int(time.time()) + 10},
        {"iat": int(time.time()) + 10},
    ]
    for claims in skewed:
        token = issuer.token(**claims)
        assert (await verifier.verify(token)).subject
        with pytest.raises(Unauthorized):
            await strict.verify(token)
    token = issuer.token()
    with time_machine.travel(time.time() + 340), pytest.raises(Unauthorized, match="expired"):
        await verifier.verify(token)


async def test_an_unknown_key_makes_one_request_however_many_ask(verifier: OidcVerifier, issuer: Issuer) -> None:
    verifier.keys.cooldown = 0.2
    await verifier.verify(issuer.token())
    unknown = [issuer.token(headers={"kid": f"unknown-{number}"}) for number in range(50)]
    await asyncio.sleep(0.25)
    issuer.delay = 0.05
    found = await asyncio.gather(*map(verifier.verify, unknown), return_exceptions=True)
    assert {type(one) for one in found} == {Unauthorized}
    assert issuer.asked["/keys"] == 2
    for token in unknown:
        with pytest.raises(Unauthorized, match="not known"):
            await verifier.verify(token)
    assert issuer.asked["/keys"] == 2


async def test_rotated_keys_are_found_by_all_who_come_at_once_and_old_ones_end(
    verifier: OidcVerifier, issuer: Issuer
) -> None:
    verifier.keys.cooldown = 0.1
    old = issuer.token()
    await verifier.verify(old)
    issuer.rotate("second", "ES256")
    await asyncio.sleep(0.15)
    issuer.delay = 0.05
    assert len(await asyncio.gather(*(verifier.verify(issuer.token(sub=str(who))) for who in range(20)))) == 20
    assert issuer.asked["/keys"] == 2
    with pytest.raises(Unauthorized, match="not known"):
        await verifier.verify(old)


async def test_keys_are_fetched_anew_behind_the_back_of_requests(verifier: OidcVerifier, issuer: Issuer) -> None:
    old = issuer.token()
    await verifier.verify(old)
    issuer.rotate("second")
    verifier.keys.lifetime = verifier.keys.cooldown = 0
    issuer.delay = 0.05
    assert (await verifier.verify(old)).subject
    verifier.keys.lifetime = 60
    await verifier.keys.refresh()
    with pytest.raises(Unauthorized, match="not known"):
        await verifier.verify(old)


async def test_while_the_provider_is_away_known_keys_work_and_others_cannot_be_told(make: Make, issuer: Issuer) -> None:
    warm, cold = make(), make()
    token = issuer.token()
    await warm.verify(token)
    issuer.stop()
    warm.keys.cooldown = warm.keys.lifetime = cold.keys.cooldown = 0
    for _ in range(3):
        assert (await warm.verify(token)).subject
        with pytest.raises(Unavailable, match="cannot be reached"):
            await warm.verify(issuer.token(headers={"kid": "new"}))
        with pytest.raises(Unavailable, match="cannot be reached"):
            await cold.verify(token)
        with pytest.raises(Unauthorized):
            await cold.verify("garbage")
    issuer.start()
    assert (await cold.verify(token)).subject
    with pytest.raises(Unauthorized, match="not known"):
        await warm.verify(issuer.token(headers={"kid": "new"}))


async def test_who_gives_up_waiting_does_not_take_the_keys_from_others(verifier: OidcVerifier, issuer: Issuer) -> None:
    issuer.delay = 0.1
    hasty, patient = (asyncio.create_task(verifier.verify(issuer.token())) for _ in range(2))
    await asyncio.sleep(0.02)
    hasty.cancel()
    assert (await patient).subject
    assert issuer.asked["/keys"] == 1


async def test_a_token_without_a_key_id_needs_a_set_of_one_key(verifier: OidcVerifier, issuer: Issuer) -> None:
    verifier.keys.cooldown = 0
    claims = jwt.decode(issuer.token(), options={"verify_signature": False})
    nameless = jwt.encode(claims, issuer.keys["first"][1], "RS256")
    assert (await verifier.verify(nameless)).subject
    issuer.keys["second"] = ("RS256", new_key("RS256"))
    await verifier.keys.refresh()
    with pytest.raises(Unauthorized, match="not known"):
        await verifier.verify(nameless)


async def test_keys_that_are_not_for_signatures_are_none(verifier: OidcVerifier, issuer: Issuer) -> None:
    key = issuer.keys["first"][1]
    secret = "c2VjcmV0" * 8
    for unusable in (
        {"kty": "oct", "k": secret, "kid": "first"},
        published(key, kid="first", use="enc"),
        {**published(key, kid="first"), "key_ops": ["encrypt"]},
    ):
        issuer.pages["/keys"] = 200, json.dumps({"keys": [unusable]}).encode()
        verifier.keys.cooldown = 0
        with pytest.raises(Unavailable):
            await verifier.verify(issuer.token())
    for wrong in (published(key, kid="first", alg="RS512"), {**published(key, kid="first"), "n": "!"}):
        issuer.pages["/keys"] = 200, json.dumps({"keys": [wrong]}).encode()
        with pytest.raises(Unauthorized, match="not known"):
            await verifier.verify(issuer.token())


@pytest.mark.parametrize(
    ("path", "status", "body", "told"),
    [
        (DISCOVERY, 404, b"", "answers with status 404"),
        (DISCOVERY, 302, b"", "answers with status 302"),
        (DISCOVERY, 200, b"<html>", "does not answer with JSON"),
        (DISCOVERY, 200, b"[" * 100_000, "does not answer with JSON"),
        (DISCOVERY, 200, b"[]", "does not answer with an object"),
        (DISCOVERY, 200, b'{"issuer": "https://evil.example.com"}', "says that its issuer is 'https://evil"),
        (DISCOVERY, 200, b'{"issuer": "URL", "jwks_uri": "file:///etc/passwd"}', "names no address of keys"),
        (DISCOVERY, 200, b'{"issuer": "URL"}', "names no address of keys"),
        (DISCOVERY, 200, b" " * (MOST_BYTES + 1), "answers with more than"),
        ("/keys", 500, b"", "answers with status 500"),
        ("/keys", 200, b"{}", "holds no keys"),
        ("/keys", 200, b'{"keys": [1]}', "publishes no key"),
    ],
)
async def test_what_is_wrong_with_a_provider_is_told(
    verifier: OidcVerifier, issuer: Issuer, path: str, status: int, body: bytes, told: str
) -> None:
    issuer.pages[path] = status, body.replace(b"URL", issuer.url.encode())
    with pytest.raises(Unavailable):
        await verifier.verify(issuer.token())
    assert told in str(verifier.keys.failure)
    assert isinstance(verifier.keys.failure, (ProviderError, ValueError))


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
    make: Make, issuer: Issuer, claims: dict[str, Any], role: Role
) -> None:
    settings = {"oidc_admin_role": "root", "oidc_readonly_role": "guests"}
    plain = await make(oidc_roles_claim="groups", **settings).verify(issuer.token(**claims))
    assert plain.role is role
    nested = await make(oidc_roles_claim="realm.access", **settings).verify(
        issuer.token(realm={"access": claims.get("groups")})
    )
    assert nested.role is role


async def test_claims_that_cannot_be_stored_are_left_out(verifier: OidcVerifier, issuer: Issuer) -> None:
    for bad in ("a\x00b", "\ud800", "", 1, None, ["x"], "x" * 400):
        found = await verifier.verify(issuer.token(email=bad, name=bad, email_verified=True))
        assert (found.email, found.email_verified, found.name) == (None, False, None)
    assert not (await verifier.verify(issuer.token(email="a@b.de", email_verified="true"))).email_verified


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"OIDC_ISSUER": "https://id.example.com"}, "OIDC_AUDIENCE: set it"),
        ({"OIDC_ISSUER": "id.example.com", "OIDC_AUDIENCE": "x"}, "OIDC_ISSUER: is an address"),
        ({"OIDC_ISSUER": "https://a:b@example.com", "OIDC_AUDIENCE": "x"}, "OIDC_ISSUER: is an address"),
        ({"OIDC_ISSUER": "https://example.com?x=y", "OIDC_AUDIENCE": "x"}, "OIDC_ISSUER: is an address"),
        ({"OIDC_ALGORITHMS": "RS256,HS256"}, "OIDC_ALGORITHMS: list some of"),
        ({"OIDC_ALGORITHMS": "none"}, "OIDC_ALGORITHMS: list some of"),
        ({"OIDC_LEEWAY_SECONDS": "3600"}, "OIDC_LEEWAY_SECONDS: "),
        ({"ENVIRONMENT": "production"}, "OIDC_ISSUER: production needs"),
        ({"ENVIRONMENT": "production", "OIDC_ISSUER": "http://id.example.com", "OIDC_AUDIENCE": "x"}, "https://"),
        ({"ENVIRONMENT": "production", "OIDC_ISSUER": "https://id.example.com"}, "OIDC_AUDIENCE: set it"),
    ],
)
def test_settings_that_would_let_strangers_in_are_refused(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], told: str
) -> None:
    for name, value in {"SECRET_KEY": "x" * 40, **environment}.items():
        monkeypatch.setenv(name, value)
    forget()
    with pytest.raises(SettingsError, match=told):
        load(OidcSettings)
    forget()


async def test_the_health_check_asks_once_and_tells_what_is_wrong(verifier: OidcVerifier, issuer: Issuer) -> None:
    app = FastAPI()
    app.state.verifier = verifier
    verifier.keys.cooldown = 0
    for _ in range(3):
        assert await check(app) is None
    assert issuer.asked["/keys"] == 1
    issuer.stop()
    verifier.keys.lifetime = -1
    for _ in range(2):
        with pytest.raises(ProviderError, match="cannot be reached"):
            await check(app)
    issuer.start()
    verifier.keys.lifetime = 60
    assert await check(app) is None
    app.state.verifier = OidcVerifier(OidcSettings())
    assert await check(app) == "nobody can sign in yet: OIDC_ISSUER is empty"


async def test_without_a_provider_nobody_gets_in() -> None:
    with pytest.raises(Unauthorized, match="no provider of identity is set"):
        await OidcVerifier(OidcSettings()).verify("a.b.c")


def test_no_shared_secret_is_ever_accepted() -> None:
    assert not [name for name in jwks.ALGORITHMS if name.startswith("HS") or name == "none"]
