"""What every provider of identity has to do: let good tokens through, and no others."""

import base64
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
import time_machine
from httpx2 import Headers
from starlette.requests import Request

from app.ports.identity import tokens
from app.ports.identity.bearer import MOST_CHARACTERS, Unauthorized, Verifier, read_token
from app.ports.identity.tokens import TokenDecoder
from tests.provider import Provider


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    with Provider() as provider:
        yield provider


@pytest.fixture
async def verifier(provider: Provider) -> AsyncIterator[Verifier]:
    async with provider.verifying() as verifier:
        yield verifier


def part(content: object) -> str:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def forged(header: object, claims: object, signature: bytes = b"x") -> str:
    return f"{part(header)}.{part(claims)}.{part(signature)}"


async def test_a_good_token_says_who_is_calling(verifier: Verifier, provider: Provider) -> None:
    token = provider.token(jti="7")
    claims = jwt.decode(token, options={"verify_signature": False})
    found = await verifier.verify(token)
    assert found.subject.endswith(f"|{claims['sub']}")
    assert (found.token_id, found.role) == ("7", None)
    assert found.issued_at is not None
    assert (found.issued_at.timestamp(), found.expires_at.timestamp()) == (claims["iat"], claims["exp"])
    assert found.claims == claims
    assert await verifier.verify(token) == found
    assert (await verifier.verify(provider.token(without="iat"))).issued_at is None
    assert (await verifier.verify(provider.token(aud=["other", claims["aud"]]))).subject == found.subject


NOW = int(time.time())


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": NOW - 60}, "has expired"),
        ({"exp": 0}, "has expired"),
        ({"exp": "soon"}, "not valid"),
        ({"exp": float("inf")}, "not valid"),
        ({"exp": 10**30}, "cannot be read"),
        ({"without": "exp"}, "not valid"),
        ({"nbf": NOW + 3600}, "not valid yet"),
        ({"iat": NOW + 3600}, "not valid yet"),
        ({"iss": "https://evil.example.com"}, "from somebody else"),
        ({"without": "iss"}, "not valid"),
        ({"aud": "other"}, "for somebody else"),
        ({"aud": ["other", 1]}, "for somebody else"),
        ({"aud": {"service": 1}}, "for somebody else"),
        ({"aud": []}, "not valid"),
        ({"aud": "services"}, "for somebody else"),
        ({"without": "aud"}, "not valid"),
        ({"without": "sub"}, "not valid"),
        ({"sub": 1}, "not valid"),
        ({"sub": ""}, "names nobody"),
        ({"sub": "a\nb"}, "names nobody"),
        ({"sub": "a" * 256}, "names nobody"),
        ({"jti": 1}, "not valid"),
        ({"headers": {"typ": "logout+jwt"}}, "another kind"),
        ({"headers": {"typ": 1}}, "another kind"),
        ({"headers": {"crit": ["exp"]}}, "not valid"),
        ({"headers": {"kid": "unknown"}}, "not known"),
        ({"headers": {"kid": "../../keys"}}, "not known"),
    ],
)
async def test_tokens_that_say_the_wrong_thing(
    verifier: Verifier, provider: Provider, claims: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Unauthorized, match=reason) as caught:
        await verifier.verify(provider.token(**claims))
    assert caught.value.headers == {
        "WWW-Authenticate": f'Bearer error="invalid_token", error_description="{caught.value.detail}"'
    }


async def test_tokens_that_are_signed_by_somebody_else(verifier: Verifier, provider: Provider) -> None:
    good = provider.token()
    claims = jwt.decode(good, options={"verify_signature": False})
    header = jwt.get_unverified_header(good)
    hostile = [
        *provider.forge(header, claims),
        *(
            forged({**header, "alg": alg}, claims)
            for alg in ("none", "None", "", "HS512", "RS512", None, ["RS256"], "rs256")
        ),
        forged({"typ": "JWT"}, claims),
        forged(header, claims),
        f"{part({**header, 'alg': 'none'})}.{part(claims)}.",
        good[:-4] + ("AAAA" if good[-4:] != "AAAA" else "BBBB"),
        ".".join([good.split(".")[0], part({**claims, "sub": "eve"}), good.split(".")[2]]),
        f"{good}.{part(b'x')}.{part(b'x')}",
    ]
    for token in hostile:
        with pytest.raises(Unauthorized):
            await verifier.verify(token)
    assert (await verifier.verify(good)).subject


@pytest.mark.parametrize(
    "garbage",
    [
        "",
        "x",
        "a.b",
        "a.b.c",
        "..",
        "a.b.c.d.e",
        "é.é.é",
        "x" * 8192,
        f"{'x' * 4000}.{'x' * 4000}.x",
        forged([], {}),
        forged({"alg": "RS256", "kid": 1}, {}),
        forged({"alg": "RS256", "kid": "first"}, []),
        forged(b'{"alg":"RS256","kid":"first"}', b"[" * 3000),
        forged(b"[" * 3000, b"{}"),
        forged(b'{"alg":' + b"1" * 5000 + b"}", b"{}"),
        forged({"alg": "RS256", "kid": "first"}, b"\xff\xfe"),
    ],
)
async def test_garbage_is_refused(verifier: Verifier, garbage: str) -> None:
    with pytest.raises(Unauthorized):
        await verifier.verify(garbage)


def test_only_one_short_token_in_the_header_is_read() -> None:
    def read(*given: str) -> str:
        headers = Headers([("authorization", value) for value in given])
        return read_token(Request({"type": "http", "headers": headers.raw, "query_string": b"access_token=x"}))

    assert read("Bearer abc") == read("bearer  abc ") == "abc"
    for none in ((), ("",), ("Basic abc",), ("abc",), ("Bearerabc",)):
        with pytest.raises(Unauthorized, match="Sign in") as caught:
            read(*none)
        assert caught.value.headers == {"WWW-Authenticate": "Bearer"}
    for bad in (("Bearer a", "Bearer b"), ("Bearer " + "x" * (MOST_CHARACTERS + 1),)):
        with pytest.raises(Unauthorized, match=r"more than one|longer than") as caught:
            read(*bad)


async def test_a_token_that_is_known_is_good_for_its_time_and_no_longer(verifier: Verifier, provider: Provider) -> None:
    for claims in ({}, {"without": "iat"}, {"nbf": int(time.time())}, {"nbf": int(time.time()), "without": "iat"}):
        token = provider.token(**claims)
        found = await verifier.verify(token)
        with time_machine.travel(found.expires_at.timestamp() + 60), pytest.raises(Unauthorized, match="has expired"):
            await verifier.verify(token)
        if claims != {"without": "iat"}:
            with time_machine.travel(time.time() - 60), pytest.raises(Unauthorized, match="not valid yet"):
                await verifier.verify(token)
        assert await verifier.verify(token) == found


async def test_a_signature_is_verified_once_and_another_one_is_not_taken_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def key(secret: bytes) -> jwt.PyJWK:
        return jwt.PyJWK({"kty": "oct", "k": base64.urlsafe_b64encode(secret).decode().rstrip("=")}, "HS256")

    class Keys:
        current = key(b"a" * 32)

        async def find(self, kid: str | None, algorithm: str) -> jwt.PyJWK | None:
            return self.current

    keys, verified, decode = Keys(), [], jwt.decode

    def counting(token: str, *arguments: Any, **options: Any) -> Any:
        verified.append(token)
        return decode(token, *arguments, **options)

    monkeypatch.setattr(jwt, "decode", counting)
    monkeypatch.setattr(tokens, "MOST_KNOWN", 2)
    decoder = TokenDecoder(keys, issuer="me", audience=None, algorithms=["HS256"], types=["jwt"])
    end = int(time.time()) + 600
    made = [jwt.encode({"iss": "me", "sub": who, "exp": end}, keys.current, "HS256") for who in "abc"]
    for token in (made[0], made[0], made[1], made[0], made[2], made[2]):
        assert await decoder.decode(token) == decode(token, options={"verify_signature": False})
    assert verified == made
    assert len(decoder.known) == 2
    tampered = f"{made[2].rpartition('.')[0]}.{made[1].rpartition('.')[2]}"
    with pytest.raises(Unauthorized, match="signature"):
        await decoder.decode(tampered)
    keys.current = key(b"b" * 32)
    with pytest.raises(Unauthorized, match="signature"):
        await decoder.decode(made[2])
