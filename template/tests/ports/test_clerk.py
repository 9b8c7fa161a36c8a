from collections.abc import Callable
from typing import Any

import jwt
import pytest

from app.ports.identity.bearer import Role, Unauthorized
from app.ports.identity.clerk import ClerkSettings, ClerkVerifier
from tests.clerk import PAGE, ClerkProvider

Make = Callable[..., ClerkVerifier]


async def test_a_token_as_clerk_makes_them_says_who_is_calling(make: Make, provider: ClerkProvider) -> None:
    found = await make(audience=None).verify(provider.token(without="aud"))
    assert found.subject == f"{provider.url}|user_ada"
    assert (found.email, found.name, found.role) == (None, None, None)
    assert provider.asked == {provider.KEYS: 1}


async def test_claims_that_were_added_are_taken(verifier: ClerkVerifier, provider: ClerkProvider) -> None:
    found = await verifier.verify(provider.token(email="ada@example.com", email_verified=True, name="Ada"))
    assert (found.email, found.email_verified, found.name) == ("ada@example.com", True, "Ada")


async def test_a_token_that_was_made_for_others_is_refused(make: Make, provider: ClerkProvider) -> None:
    """A template makes tokens for other services, with an audience; this service asks for none."""
    with pytest.raises(Unauthorized, match="for somebody else"):
        await make(audience=None).verify(provider.token())


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"without": "azp"}, "does not say which page"),
        ({"azp": None}, "does not say which page"),
        ({"azp": "https://evil.example.com"}, "for another page"),
        ({"azp": f"{PAGE}.evil.example.com"}, "for another page"),
        ({"azp": f"{PAGE}/"}, "for another page"),
        ({"azp": [PAGE]}, "for another page"),
        ({"azp": ""}, "for another page"),
        ({"sts": "pending"}, "something left to do"),
        ({"sts": "revoked"}, "something left to do"),
        ({"sts": ["active"]}, "something left to do"),
        ({"sub": "mch_2xhFjEI5X2qWRvtV13BzSj8H6Dk"}, "names nobody"),
        ({"sub": "user_"}, "names nobody"),
        ({"headers": {"typ": "at+jwt"}}, "another kind"),
        ({"headers": {"typ": None}}, "another kind"),
    ],
)
async def test_what_is_not_the_session_of_a_user_is_refused(
    verifier: ClerkVerifier, provider: ClerkProvider, claims: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Unauthorized, match=reason):
        await verifier.verify(provider.token(**claims))


async def test_a_token_for_any_service_has_to_be_that_of_a_session(make: Make, provider: ClerkProvider) -> None:
    """A template makes tokens for other services. Without an audience, only the session tells them apart."""
    claims = jwt.decode(provider.token(), options={"verify_signature": False})
    for claim in ("aud", "sid"):
        claims.pop(claim)
    token = jwt.encode(claims, provider.keys["first"][1], "RS256", {"kid": "first"})
    with pytest.raises(Unauthorized, match="not that of a session"):
        await make(audience=None).verify(token)
    assert (await make().verify(provider.token(without="sid"))).subject


async def test_tokens_of_before_sessions_could_be_pending_are_good(
    verifier: ClerkVerifier, provider: ClerkProvider
) -> None:
    assert (await verifier.verify(provider.token(without="sts"))).subject


async def test_native_applications_have_no_page(make: Make, provider: ClerkProvider) -> None:
    verifier = make(native_apps=True)
    assert (await verifier.verify(provider.token(without="azp"))).subject
    with pytest.raises(Unauthorized, match="for another page"):
        await verifier.verify(provider.token(azp="https://evil.example.com"))


async def test_roles_come_from_the_public_metadata(make: Make, provider: ClerkProvider) -> None:
    verifier = make(roles_claim="metadata.role")
    assert (await verifier.verify(provider.token(metadata={"role": "admin"}))).role is Role.ADMIN
    assert (await verifier.verify(provider.token(role="admin"))).role is Role.USER


TRIAL = "https://calm-fox-1.clerk.accounts.dev"
GOOD = {"CLERK_ISSUER": "https://clerk.example.com", "CLERK_AUTHORIZED_PARTIES": PAGE}


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"CLERK_ISSUER": "https://clerk.example.com"}, "CLERK_AUTHORIZED_PARTIES: list the origins"),
        ({**GOOD, "CLERK_AUTHORIZED_PARTIES": "*"}, "CLERK_AUTHORIZED_PARTIES: list scheme://host"),
        ({**GOOD, "CLERK_AUTHORIZED_PARTIES": f"{PAGE}/"}, "CLERK_AUTHORIZED_PARTIES: list scheme://host"),
        ({**GOOD, "CLERK_AUTHORIZED_PARTIES": "app.example.com"}, "CLERK_AUTHORIZED_PARTIES: list scheme://host"),
        ({**GOOD, "CLERK_ISSUER": "clerk.example.com"}, "CLERK_ISSUER: is an address"),
        ({**GOOD, "CLERK_ROLES_CLAIM": "unsafe_metadata.role"}, "CLERK_ROLES_CLAIM: users write unsafe_metadata"),
        ({**GOOD, "CLERK_ROLES_CLAIM": "o.rol"}, "CLERK_ROLES_CLAIM: whoever makes an organization"),
        ({**GOOD, "CLERK_ROLES_CLAIM": "org_role"}, "CLERK_ROLES_CLAIM: whoever makes an organization"),
        ({**GOOD, "CLERK_ROLES_CLAIM": "org_permissions"}, "CLERK_ROLES_CLAIM: whoever makes an organization"),
        ({**GOOD, "CLERK_ROLES_CLAIM": "metadata.org_role"}, ""),
        ({"ENVIRONMENT": "production"}, "CLERK_ISSUER: production needs"),
        ({**GOOD, "ENVIRONMENT": "production", "CLERK_ISSUER": "http://clerk.example.com"}, "starts with https://"),
        ({**GOOD, "ENVIRONMENT": "production", "CLERK_ISSUER": TRIAL}, "CLERK_ISSUER: is a development instance"),
        ({**GOOD, "CLERK_ISSUER": TRIAL}, ""),
        ({**GOOD, "ENVIRONMENT": "production"}, ""),
        ({**GOOD, "CLERK_AUTHORIZED_PARTIES": f"{PAGE}, http://localhost:3000"}, ""),
    ],
)
def test_settings_that_would_let_strangers_in_are_refused(
    refusal: Callable[..., str], environment: dict[str, str], told: str
) -> None:
    found = refusal(ClerkSettings, environment)
    assert told in found
    assert bool(told) == bool(found)
