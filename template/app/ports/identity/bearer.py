"""Bearer tokens (RFC 6750): what all providers share that vouch for a caller with a token."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from starlette.requests import HTTPConnection

from app.kit.errors import AppError

# Servers accept longer headers; nobody's token needs them.
MOST_CHARACTERS = 8192


class Role(StrEnum):
    """What a user may do: everything, their own things, or only look at them."""

    ADMIN = "admin"
    USER = "user"
    READONLY = "readonly"


class Unauthorized(AppError):
    """The caller is not known. With a reason, a token came and is no good; without, none came."""

    status = 401

    def __init__(self, reason: str | None = None) -> None:
        super().__init__(reason or "Sign in: this needs a bearer token in the Authorization header.")
        error = f' error="invalid_token", error_description="{reason}"' if reason else ""
        self.headers = {"WWW-Authenticate": f"Bearer{error}"}


class Forbidden(AppError):
    """The caller is known, and may not do this."""

    status = 403

    def __init__(self, detail: str, code: str) -> None:
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedToken:
    """What a provider says of a caller. `subject` names one person among all issuers, now and later.

    `email_verified` is None where it does not say, `role` where roles are not the provider's matter.
    """

    subject: str
    email: str | None
    email_verified: bool | None
    name: str | None
    role: Role | None
    claims: Mapping[str, Any]
    token_id: str | None
    issued_at: datetime | None
    expires_at: datetime


class Verifier(Protocol):
    """An adapter: it verifies a token, or raises Unauthorized, Forbidden, or Unavailable when it cannot tell."""

    async def verify(self, token: str) -> VerifiedToken:
        """Return what a token says."""


def read_token(connection: HTTPConnection) -> str:
    """Read the one bearer token of a request from its header, and from nowhere else. Raises Unauthorized."""
    given = connection.headers.getlist("authorization")
    if len(given) > 1:
        raise Unauthorized("There is more than one Authorization header.")
    scheme, _, token = given[0].partition(" ") if given else ("", "", "")
    if scheme.lower() != "bearer":
        raise Unauthorized
    if len(token) > MOST_CHARACTERS:
        raise Unauthorized(f"The token is longer than {MOST_CHARACTERS} characters.")
    return token.strip(" ")
