"""A service from `copier copy` to what a provider's own tokens open: oauth2-mock-server issues them, over its HTTP.

npm puts it into `build/npm` when it is not there yet.
"""

import base64
import hashlib
import secrets
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from conftest import Copy, free_port, run
from treatment import served
from workshop import ask, doctor, modules, started

NAME = "auth_provider-oidc"
PACKAGE = "oauth2-mock-server@7.2.1"
AUDIENCE = "https://api.example.com"
pytestmark = [pytest.mark.service, pytest.mark.xdist_group(NAME)]
Services = Callable[[str], Copy]


@pytest.fixture(scope="module")
def provider() -> Callable[..., Any]:
    """What starts the provider on a port, with a key for an algorithm, until the block ends."""
    found = modules(PACKAGE)
    return lambda algorithm, port: started("provider.cjs", found, algorithm, str(port))


def sign_in(issuer: str, user: str) -> dict[str, str]:
    """Sign in as a frontend does: an authorization code, with PKCE."""
    _, found = ask(f"{issuer}/.well-known/openid-configuration")
    verifier = secrets.token_urlsafe(48)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    redirect = "http://127.0.0.1/callback"
    query = {
        "response_type": "code",
        "client_id": "frontend",
        "redirect_uri": redirect,
        "login_hint": user,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    redirected = httpx2.get(found["authorization_endpoint"], params=query)
    code = parse_qs(urlsplit(redirected.headers["location"]).query)["code"][0]
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "code_verifier": verifier,
        "client_id": "frontend",
        "redirect_uri": redirect,
        "resource": AUDIENCE,
    }
    tokens: dict[str, str] = httpx2.post(found["token_endpoint"], data=form).json()
    return tokens


def test_a_token_of_a_real_provider_opens_the_service(services: Services, provider: Callable[..., Any]) -> None:
    service, port = services(NAME).folder, free_port()
    env = {"OIDC_ISSUER": f"http://localhost:{port}", "OIDC_AUDIENCE": AUDIENCE}
    with served(service, env) as (base, _):
        me, users = f"{base}/api/v1/app/users/me", f"{base}/api/v1/admin/users"
        with provider("RS256", port) as issuer:
            assert issuer == env["OIDC_ISSUER"]
            ada, eve = sign_in(issuer, "ada"), sign_in(issuer, "eve")
            status, shown = ask(me, ada["access_token"])
            assert (status, shown["email"], shown["email_verified"]) == (200, "ada@example.com", True)
            assert ask(me, ada["id_token"])[0] == 401
            assert ask(me)[0] == 401
            assert ask(users, ada["access_token"])[0] == 403
            assert "is an admin" in run(
                service / ".venv/bin/app", "access", "make-admin", "ada@example.com", cwd=service, env=env
            )
            id = ask(me, eve["access_token"])[1]["id"]  # noqa: A001
            status, found = ask(users, ada["access_token"])
            assert (status, {user["email"] for user in found["items"]}) == (200, {"ada@example.com", "eve@example.com"})
            assert ask(f"{users}/{id}/deactivate", ada["access_token"], "POST")[0] == 200
            assert ask(me, eve["access_token"])[1]["code"] == "account_deactivated"
            assert "identity: up" in run(service / ".venv/bin/app", "doctor", cwd=service, env=env)
        # The provider is away.
        assert ask(me, ada["access_token"])[0] == 200
        told = doctor(services(NAME), env)
        assert (told.returncode, "openid-configuration cannot be reached" in told.stdout) == (1, True), told
        # It is back with another kind of key; the old one is no longer good.
        with provider("ES256", port) as issuer:
            token = sign_in(issuer, "ada")["access_token"]
            deadline = time.monotonic() + 30
            while ask(me, token)[0] != 200:
                assert time.monotonic() < deadline
                time.sleep(0.5)
            assert ask(me, token)[1]["id"] == shown["id"]
            assert ask(me, ada["access_token"])[0] == 401


def test_the_doctor_says_what_is_wrong_with_an_issuer(services: Services, provider: Callable[..., Any]) -> None:
    with provider("RS256", free_port()) as issuer:
        for wrong, sentence in {
            f"{issuer}/": f"says that its issuer is '{issuer}', and OIDC_ISSUER is '{issuer}/'",
            f"{issuer}/realm": "openid-configuration answers with status 404",
        }.items():
            told = doctor(services(NAME), {"OIDC_ISSUER": wrong, "OIDC_AUDIENCE": AUDIENCE})
            assert told.returncode == 1
            assert sentence in told.stdout
            assert "Check OIDC_ISSUER" in told.stdout
