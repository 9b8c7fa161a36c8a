from collections.abc import Callable
from typing import Any

import pytest

from app.kit.errors import Unavailable
from app.ports.identity.bearer import Unauthorized
from app.ports.identity.oidc import OidcSettings, OidcVerifier
from app.ports.identity.provider import MOST_BYTES, ProviderError
from tests.oidc import AUDIENCE, DISCOVERY, OidcProvider

Make = Callable[..., OidcVerifier]


async def test_a_good_token_says_who_is_calling(verifier: OidcVerifier, provider: OidcProvider) -> None:
    claims: dict[str, Any] = {
        "email": "ada@example.com",
        "email_verified": True,
        "name": "Ada",
        "jti": "7",
        "aud": ["x", AUDIENCE],
    }
    found = await verifier.verify(provider.token(**claims))
    assert found.subject == f"{provider.url}|ada"
    assert (found.email, found.email_verified, found.name, found.token_id) == ("ada@example.com", True, "Ada", "7")
    assert found.role is None
    assert found.issued_at is not None
    assert (found.expires_at - found.issued_at).total_seconds() == found.claims["exp"] - found.claims["iat"] == 300
    assert provider.asked == {DISCOVERY: 1, "/keys": 1}
    bare = await verifier.verify(provider.token(without="iat", email_verified=True))
    assert (bare.email, bare.email_verified, bare.name, bare.issued_at) == (None, False, None, None)
    assert sum(provider.asked.values()) == 2


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256"])
async def test_keys_of_every_kind_verify(make: Make, provider: OidcProvider, algorithm: str) -> None:
    verifier = make(algorithms="RS256,PS256,ES256")
    provider.rotate("other", algorithm)
    assert (await verifier.verify(provider.token())).subject
    narrow = make(algorithms="RS512")
    with pytest.raises(Unauthorized, match="signed in a way"):
        await narrow.verify(provider.token())


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
    verifier: OidcVerifier, provider: OidcProvider, path: str, status: int, body: bytes, told: str
) -> None:
    provider.pages[path] = status, body.replace(b"URL", provider.url.encode())
    with pytest.raises(Unavailable):
        await verifier.verify(provider.token())
    assert told in str(verifier.keys.failure)
    assert isinstance(verifier.keys.failure, (ProviderError, ValueError))


async def test_claims_that_cannot_be_stored_are_left_out(verifier: OidcVerifier, provider: OidcProvider) -> None:
    for bad in ("a\x00b", "\ud800", "", 1, None, ["x"], "x" * 400):
        found = await verifier.verify(provider.token(email=bad, name=bad, email_verified=True))
        assert (found.email, found.email_verified, found.name) == (None, False, None)
    assert not (await verifier.verify(provider.token(email="a@b.de", email_verified="true"))).email_verified


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
    refusal: Callable[..., str], environment: dict[str, str], told: str
) -> None:
    assert told in refusal(OidcSettings, environment)
