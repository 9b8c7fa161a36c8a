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
from app.modules.accounts.sessions import SessionService
from app.modules.accounts.settings import AccountSettings
from app.ports.identity.bearer import MOST_CHARACTERS, Forbidden, Unauthorized, read_token
from app.ports.identity.local import LocalSettings

ACCESS_COOKIE = "access"
REFRESH_COOKIE = "refresh"
CSRF_HEADER = "X-Requested-With"


def is_https() -> bool:
    """Tell whether people open the application over https, as in production they must."""
    return load(LocalSettings).public_url.startswith("https://")


def full_name(name: str) -> str:
    """Add the prefix with which browsers take a cookie from this host alone (RFC 6265bis, 4.1.3), and no subdomain.

    In development over http they take neither the prefix nor Secure, some of them not even from localhost.
    """
    return f"__Host-{name}" if is_https() else name


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


def read_cookie(connection: HTTPConnection, name: str) -> str | None:
    """Read a cookie. Raises Unauthorized when it comes twice: one of the two is somebody else's.

    Names are taken as they are. The framework strips characters from them that a browser takes for a part of the name,
    and keeps the last of several.
    """
    name = full_name(name)
    pairs = (pair.partition("=") for header in connection.headers.getlist("cookie") for pair in header.split(";"))
    found = [value.strip(" \t") for key, _, value in pairs if key.strip(" \t") == name]
    if len(found) > 1:
        raise Unauthorized(f"There is more than one cookie {name}: delete the cookies of this site.")
    return found[0] if found else None


def read_access_token(connection: HTTPConnection) -> str:
    """Read the access token from the header, or else from the cookie. Raises Unauthorized, and Forbidden."""
    if "authorization" in connection.headers or not (token := read_cookie(connection, ACCESS_COOKIE)):
        return read_token(connection)
    if connection.scope.get("method") not in READING:
        check_origin(connection)
    if len(token) > MOST_CHARACTERS:
        raise Unauthorized("The token is too long.")
    return token


def read_refresh_token(connection: HTTPConnection, given: str | None) -> str | None:
    """Take the refresh token that is given, or else the one of the cookie. Raises Forbidden."""
    if given is None and (token := read_cookie(connection, REFRESH_COOKIE)):
        check_origin(connection)
        return token
    return given


def keep_in_cookies(response: Response, tokens: Tokens) -> Tokens:
    """Move the tokens into cookies."""
    days = load(AccountSettings).auth_refresh_token_days
    for name, token, seconds in (
        (ACCESS_COOKIE, tokens.access_token, tokens.expires_in),
        (REFRESH_COOKIE, tokens.refresh_token, days * 86_400),
    ):
        response.set_cookie(
            full_name(name),
            token or "",
            max_age=seconds,
            path="/",
            secure=is_https(),
            httponly=True,
            samesite="strict",
        )
    return Tokens(expires_in=tokens.expires_in)


def session_before(connection: HTTPConnection) -> str | None:
    """Read the refresh token of the session that a new one in cookies takes the place of. Raises Forbidden."""
    check_origin(connection)
    return read_cookie(connection, REFRESH_COOKIE)


async def take_over(response: Response, tokens: Tokens, sessions: SessionService, before: str | None) -> Tokens:
    """Move the tokens of a new session into cookies, and end the one that they held before."""
    if before:
        await sessions.log_out(before)
    return keep_in_cookies(response, tokens)


def agent_of(connection: HTTPConnection) -> str | None:
    """Read what a client says that it is, for the list of sessions."""
    return "".join(filter(str.isprintable, connection.headers.get("user-agent", "")))[:200] or None


def forget_cookies(connection: HTTPConnection, response: Response) -> None:
    """Take back the cookies that came. A form of another site comes without cookies, and takes none away."""
    for name in map(full_name, (ACCESS_COOKIE, REFRESH_COOKIE)):
        if name in connection.cookies:
            response.delete_cookie(name, path="/", secure=is_https(), httponly=True, samesite="strict")
