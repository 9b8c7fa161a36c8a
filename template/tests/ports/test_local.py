import pytest

from app.kit.settings import DEVELOPMENT_SECRET, SettingsError, forget, load
from app.ports.identity.bearer import Unauthorized
from app.ports.identity.local import AccessTokens, LocalSettings, session_id, signing_key
from tests.accounts import SECRET, id_of


async def test_what_is_signed_says_whose_it_is() -> None:
    tokens = AccessTokens(signing_key(SECRET), LocalSettings())
    found = await tokens.verify(tokens.issue(user_id=id_of("ada"), session_id=id_of("session")))
    assert (found.subject, session_id(found)) == (f"local|{id_of('ada')}", id_of("session"))
    assert found.issued_at is not None
    assert (found.expires_at - found.issued_at).total_seconds() == 600
    assert (found.email, found.role, bool(found.token_id)) == (None, None, True)


async def test_processes_with_the_same_secret_and_address_take_each_others_tokens_and_no_others() -> None:
    def tokens(secret: str = SECRET, **settings: str) -> AccessTokens:
        return AccessTokens(signing_key(secret), LocalSettings(**settings))  # type: ignore[arg-type]

    token = tokens().issue(user_id=id_of("ada"), session_id=id_of("session"))
    assert (await tokens().verify(token)).subject
    for other in (tokens("another secret"), tokens(public_url="https://other.example.com")):
        with pytest.raises(Unauthorized):
            await other.verify(token)


def test_a_secret_that_everybody_knows_signs_nothing() -> None:
    assert signing_key(SECRET) == signing_key(SECRET) != SECRET.encode()
    assert signing_key(DEVELOPMENT_SECRET) != signing_key(DEVELOPMENT_SECRET)


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        *(
            ({"PUBLIC_URL": url}, "PUBLIC_URL: is an address")
            for url in (
                "app.example.com",
                "ftp://a.b",
                "https://a.b?x",
                "https://a@b.c",
                "https://",
                "https://a b",
                "http://[",
            )
        ),
        ({"ENVIRONMENT": "production"}, "PUBLIC_URL: production needs"),
        ({"ENVIRONMENT": "production", "PUBLIC_URL": "http://app.example.com"}, "PUBLIC_URL: production needs"),
        ({"AUTH_ACCESS_TOKEN_SECONDS": "86400"}, "AUTH_ACCESS_TOKEN_SECONDS: "),
    ],
)
def test_settings_that_would_lead_people_astray_are_refused(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], told: str
) -> None:
    for name, value in {"SECRET_KEY": "a secret of these tests alone, and of no service", **environment}.items():
        monkeypatch.setenv(name, value)
    forget()
    with pytest.raises(SettingsError, match=told):
        load(LocalSettings)
    forget()


def test_a_slash_at_the_end_is_no_part_of_the_address() -> None:
    assert LocalSettings(public_url="https://app.example.com/shop/").public_url == "https://app.example.com/shop"
