"""Tokens in cookies, for pages in a browser: no script can read them, and no other site can make use of them.

A browser sends cookies along whoever makes it send a request. So what changes something counts only with a header that
other sites cannot set without being asked (CORS), and only from an origin of ours.
"""

from urllib.parse import urlsplit

from fastapi import Response
from starlette.requests import HTTPConnection

from app.kit.settings import CoreSettings, load
from app.modules.access.service import READING
from app.modules.accounts.schemas import Tokens
from app.modules.accounts.settings import AccountSettings
from app.ports.identity.bearer import MOST_CHARACTERS, Forbidden, Unauthorized, read_token
from app.ports.identity.local import LocalSettings

# Browsers take these names only from https and, for the first, from this host alone (RFC 6265bis, 4.1.3).
ACCESS_COOKIE = "__Host-access"
REFRESH_COOKIE = "__Secure-refresh"
REFRESH_PATH = "/api/v1/public/auth"
CSRF_HEADER = "X-Requested-With"


def own_origins() -> set[str]:
    """List the origins whose pages may act for those who are signed in."""
    parts = urlsplit(load(LocalSettings).public_url)
    return {f"{parts.scheme}://{parts.netloc}".lower(), *load(CoreSettings).cors_origins} - {"*"}


def check_origin(connection: HTTPConnection) -> None:
    """Refuse what another site may have made a browser send. Raises Forbidden."""
    headers = connection.headers
    ours = headers.get("sec-fetch-site") == "same-origin" or headers.get("origin", "").lower() in own_origins()
    if not ours or not headers.get(CSRF_HEADER):
        raise Forbidden(f"A request with cookies needs the header {CSRF_HEADER}, and an origin of ours.", "csrf")


def read_access_token(connection: HTTPConnection) -> str:
    """Read the access token from the header, or else from the cookie. Raises Unauthorized, and Forbidden."""
    if "authorization" in connection.headers or not (token := connection.cookies.get(ACCESS_COOKIE)):
        return read_token(connection)
    if connection.scope.get("method") not in READING:
        check_origin(connection)
    if len(token) > MOST_CHARACTERS:
        raise Unauthorized("The token is too long.")
    return token


def read_refresh_token(connection: HTTPConnection, given: str | None) -> str | None:
    """Take the refresh token that is given, or else the one of the cookie. Raises Forbidden."""
    if given is None and (token := connection.cookies.get(REFRESH_COOKIE)):
        check_origin(connection)
        return token
    return given


def keep_in_cookies(response: Response, tokens: Tokens) -> Tokens:
    """Move the tokens into cookies."""
    days = load(AccountSettings).auth_refresh_token_days
    response.set_cookie(
        ACCESS_COOKIE,
        tokens.access_token or "",
        max_age=tokens.expires_in,
        path="/",
        secure=True,
        httponly=True,
        samesite="strict",
    )
    response.set_cookie(
        REFRESH_COOKIE,
        tokens.refresh_token or "",
        max_age=days * 86_400,
        path=REFRESH_PATH,
        secure=True,
        httponly=True,
        samesite="strict",
    )
    return Tokens(expires_in=tokens.expires_in)


def forget_cookies(response: Response) -> None:
    """Take the cookies back."""
    response.delete_cookie(ACCESS_COOKIE, path="/", secure=True, httponly=True, samesite="strict")
    response.delete_cookie(REFRESH_COOKIE, path=REFRESH_PATH, secure=True, httponly=True, samesite="strict")
