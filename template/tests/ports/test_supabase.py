import base64
import hmac
import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.kit.errors import Unavailable
from app.ports.identity.bearer import Forbidden, Role, Unauthorized
from app.ports.identity.supabase import SupabaseSettings, SupabaseVerifier
from tests.supabase import SupabaseProvider

SECRET = "a-legacy-secret-of-a-project-that-is-long-enough"
KNOWN = "super-secret-jwt-token-with-at-least-32-characters-long"
LIVE = {"ENVIRONMENT": "production", "SUPABASE_URL": "https://abc.supabase.co"}
Make = Callable[..., SupabaseVerifier]


def legacy(provider: SupabaseProvider, *, key: str = SECRET, alg: str = "HS256", **claims: Any) -> str:
    """Sign what a good token says with the shared secret."""
    said = jwt.decode(provider.token(**claims), options={"verify_signature": False})
    return jwt.encode(said, key, alg, {"kid": "legacy"})


async def test_a_good_token_says_who_is_calling(verifier: SupabaseVerifier, provider: SupabaseProvider) -> None:
    found = await verifier.verify(provider.token(email="ada@example.com", name="Ada"))
    assert found.subject == f"{provider.url}/auth/v1|{provider.person('ada')}"
    assert (found.email, found.email_verified, found.name, found.role) == ("ada@example.com", None, "Ada", None)
    assert provider.asked == {provider.KEYS: 1}


async def test_an_address_is_verified_by_the_project_and_never_by_the_user(
    make: Make, provider: SupabaseProvider
) -> None:
    claims: dict[str, Any] = {"email": "a@b.de", "email_verified": True, "user_metadata": {"email_verified": True}}
    assert (await make().verify(provider.token(**claims))).email_verified is None
    assert (await make(confirms_email=True).verify(provider.token(email="a@b.de"))).email_verified is True


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
async def test_both_kinds_of_keys_verify(make: Make, provider: SupabaseProvider, algorithm: str) -> None:
    provider.rotate("key", algorithm)
    assert (await make().verify(provider.token())).subject
    assert (await make(jwt_secret=SECRET).verify(provider.token())).subject


async def test_the_legacy_secret_verifies_where_it_is_set_and_without_the_project(
    make: Make, provider: SupabaseProvider
) -> None:
    token = legacy(provider)
    with pytest.raises(Unauthorized, match="signed in a way"):
        await make().verify(token)
    provider.stop()
    verifier = make(jwt_secret=SECRET)
    assert (await verifier.verify(token)).subject
    for wrong in (legacy(provider, key=SECRET + "x"), legacy(provider, exp=1), legacy(provider, aud="other")):
        with pytest.raises(Unauthorized):
            await verifier.verify(wrong)
    with pytest.raises(Unavailable):
        await verifier.verify(provider.token())
    provider.start()


async def test_a_secret_is_no_key_and_a_key_is_no_secret(make: Make, provider: SupabaseProvider) -> None:
    """Everybody knows the public keys, and some have the secret of the time before."""
    verifier = make(jwt_secret=SECRET)
    assert (await verifier.verify(provider.token())).subject
    kid, (_, key) = next(iter(provider.keys.items()))
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    claims = jwt.decode(provider.token(), options={"verify_signature": False})

    def signed(secret: bytes, alg: str = "HS256") -> str:
        parts = (json.dumps(part).encode() for part in ({"alg": alg, "typ": "JWT", "kid": kid}, claims))
        text = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
        signature = base64.urlsafe_b64encode(hmac.digest(secret, text, "sha256")).rstrip(b"=")
        return f"{text.decode()}.{signature.decode()}"

    assert (await verifier.verify(signed(SECRET.encode()))).subject
    for wrong in (pem, pem.strip(), json.dumps(provider.jwks()["keys"][0]).encode(), b"", SECRET[:-1].encode()):
        with pytest.raises(Unauthorized, match="signature of the token is wrong"):
            await verifier.verify(signed(wrong))
    for alg in ("RS256", "ES256", "HS384", "HS512", "none"):
        with pytest.raises(Unauthorized):
            await verifier.verify(signed(SECRET.encode(), alg))
    with pytest.raises(Unauthorized, match="signed in a way"):
        await verifier.verify(legacy(provider, alg="HS512", key=SECRET * 2))


async def test_a_project_without_keys_needs_the_secret(make: Make, provider: SupabaseProvider) -> None:
    provider.keys, token = {}, provider.token()
    bare, old = make(), make(jwt_secret=SECRET)
    await bare.keys.refresh()
    assert "holds no keys: let the project sign with a pair of keys" in str(bare.keys.failure)
    await old.keys.refresh()
    assert old.keys.failure is None
    with pytest.raises(Unauthorized, match="not known"):
        await old.verify(token)


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"role": "anon"}, "key of the project"),
        ({"role": "service_role"}, "key of the project"),
        ({"without": "role"}, "key of the project"),
        ({"role": ["authenticated"]}, "key of the project"),
        ({"iss": "supabase"}, "from somebody else"),
        ({"iss": "https://other.supabase.co/auth/v1"}, "from somebody else"),
        ({"aud": "anon"}, "for somebody else"),
        ({"client_id": "9a8b7c6d-5e4f-3a2b-1c0d-9e8f7a6b5c4d"}, "given to another application"),
        ({"client_id": ""}, "given to another application"),
        ({"sub": "ada"}, "names nobody"),
        ({"sub": "A0000000-0000-0000-0000-000000000000"}, "names nobody"),
    ],
)
async def test_what_is_not_the_token_of_a_user_is_refused(
    verifier: SupabaseVerifier, provider: SupabaseProvider, claims: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Unauthorized, match=reason):
        await verifier.verify(provider.token(**claims))


@pytest.mark.parametrize("role", ["anon", "service_role"])
async def test_the_api_keys_of_a_project_are_nobody(make: Make, provider: SupabaseProvider, role: str) -> None:
    """They are signed with the legacy secret, are good for years, and one of them is in every page."""
    claims = {"iss": "supabase", "ref": "abc", "role": role, "iat": 1_700_000_000, "exp": 2_900_000_000}
    with pytest.raises(Unauthorized):
        await make(jwt_secret=SECRET).verify(jwt.encode(claims, SECRET, "HS256"))


async def test_anonymous_users_are_let_in_where_a_setting_says_so(make: Make, provider: SupabaseProvider) -> None:
    token = provider.token(is_anonymous=True)
    with pytest.raises(Forbidden, match="Anonymous users") as caught:
        await make().verify(token)
    assert (caught.value.status, caught.value.code) == (403, "anonymous_user")
    assert (await make(anonymous_users=True).verify(token)).subject


async def test_a_second_factor_may_be_asked_for(make: Make, provider: SupabaseProvider) -> None:
    strict = make(minimum_aal="aal2")
    assert (await strict.verify(provider.token(aal="aal2"))).subject
    for claims in ({"aal": "aal1"}, {"without": "aal"}, {"aal": ["aal2"]}):
        with pytest.raises(Unauthorized, match="second factor"):
            await strict.verify(provider.token(**claims))


async def test_roles_come_from_what_users_cannot_write(make: Make, provider: SupabaseProvider) -> None:
    verifier = make(roles_claim="app_metadata.role")
    assert (await verifier.verify(provider.token(app_metadata={"role": "admin"}))).role is Role.ADMIN
    own = provider.token(user_metadata={"role": "admin"}, role="admin")
    assert (await verifier.verify(own)).role is Role.USER


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"SUPABASE_URL": "abc.supabase.co"}, "SUPABASE_URL: is an address"),
        ({"SUPABASE_URL": "https://abc.supabase.co?apikey=x"}, "SUPABASE_URL: is an address"),
        ({"SUPABASE_JWT_SECRET": "x" * 31}, "SUPABASE_JWT_SECRET: has at least 32 characters"),
        ({"SUPABASE_JWT_SECRET": "x" + " " * 40}, "SUPABASE_JWT_SECRET: has at least 32 characters"),
        ({"SUPABASE_ROLES_CLAIM": "user_metadata.role"}, "SUPABASE_ROLES_CLAIM: users write user_metadata themselves"),
        ({"SUPABASE_ROLES_CLAIM": "user_metadata"}, "SUPABASE_ROLES_CLAIM: users write"),
        ({"SUPABASE_ROLES_CLAIM": "role", "SUPABASE_ADMIN_ROLE": "authenticated"}, "SUPABASE_ADMIN_ROLE: every user"),
        ({"SUPABASE_ROLES_CLAIM": "role", "SUPABASE_ADMIN_ROLE": "chief"}, ""),
        ({"SUPABASE_MINIMUM_AAL": "aal3"}, "SUPABASE_MINIMUM_AAL: "),
        ({"ENVIRONMENT": "production"}, "SUPABASE_URL: production needs"),
        ({"ENVIRONMENT": "production", "SUPABASE_URL": "http://abc.supabase.co"}, "starts with https://"),
        ({"ENVIRONMENT": "production", "SUPABASE_URL": "https://abc.supabase.co"}, ""),
        ({**LIVE, "SUPABASE_JWT_SECRET": KNOWN}, "SUPABASE_JWT_SECRET: is an example of Supabase's"),
        ({**LIVE, "SUPABASE_JWT_SECRET": f"your-{KNOWN}"}, "SUPABASE_JWT_SECRET: is an example of Supabase's"),
        ({**LIVE, "SUPABASE_JWT_SECRET": SECRET}, ""),
        ({"SUPABASE_URL": "http://127.0.0.1:54321", "SUPABASE_JWT_SECRET": KNOWN}, ""),
        ({"SUPABASE_URL": "http://127.0.0.1:54321/", "SUPABASE_JWT_SECRET": SECRET}, ""),
    ],
)
def test_settings_that_would_let_strangers_in_are_refused(
    refusal: Callable[..., str], environment: dict[str, str], told: str
) -> None:
    found = refusal(SupabaseSettings, environment)
    assert told in found
    assert bool(told) == bool(found)


def test_the_issuer_follows_from_the_address() -> None:
    assert SupabaseSettings(supabase_url="https://abc.supabase.co/").issuer == "https://abc.supabase.co/auth/v1"
