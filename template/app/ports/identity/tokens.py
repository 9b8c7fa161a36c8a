"""JSON Web Tokens (RFC 7519): what is checked of each, whoever has signed it."""

import re
import time
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Any, Protocol

import jwt
from jwt import PyJWK

from app.ports.identity.bearer import Unauthorized

# Access tokens (RFC 9068). The same keys may sign tokens for other ends, such as logout+jwt.
TYPES = frozenset({"at+jwt", "application/at+jwt"})
MOST_KNOWN = 1024
_looks_like_a_token = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+").fullmatch
_REASONS: dict[type[jwt.PyJWTError], str] = {
    jwt.ExpiredSignatureError: "The token has expired.",
    jwt.ImmatureSignatureError: "The token is not valid yet.",
    jwt.InvalidAudienceError: "The token is for somebody else.",
    jwt.InvalidIssuerError: "The token comes from somebody else.",
    jwt.InvalidSignatureError: "The signature of the token is wrong.",
}


class Keys(Protocol):
    """Where the key of a token is found."""

    async def find(self, kid: str | None, algorithm: str) -> PyJWK | None:
        """Find a key by its id; without one, the only key for the algorithm. Raises Unavailable when it cannot tell."""


class TokenDecoder:
    """Reads the claims of tokens that one issuer made for one audience, or without an audience for none.

    What a key has verified is known by its hash from then on: callers come again with the same token, and its signature
    is half of the work. Everything that changes is looked at each time: the key has to be there still, and the time.
    """

    def __init__(
        self,
        keys: Keys,
        *,
        issuer: str,
        audience: str | None,
        algorithms: Collection[str],
        types: Collection[str | None] = TYPES,
        leeway: float = 0,
    ) -> None:
        self.keys, self.issuer, self.audience = keys, issuer, audience
        self.algorithms, self.types, self.leeway = frozenset(algorithms), frozenset(types), leeway
        self.required = ["exp", "iss", "sub", *(["aud"] if audience is not None else [])]
        self.known: dict[bytes, tuple[PyJWK, Mapping[str, Any]]] = {}

    async def decode(self, token: str) -> Mapping[str, Any]:
        """Return the claims of a token. Raises Unauthorized, or Unavailable when it cannot tell."""
        if not _looks_like_a_token(token):
            raise Unauthorized("This is not a signed token.")
        try:
            header = header_of(token.partition(".")[0])
            kid, algorithm, kind = header.get("kid"), header.get("alg"), header.get("typ")
            if algorithm not in self.algorithms:
                raise Unauthorized("The token is signed in a way that is not accepted.")
            if (kind.lower() if isinstance(kind, str) else kind) not in self.types:
                raise Unauthorized("The token is of another kind.")
            key = await self.keys.find(kid, algorithm)
            if key is None:
                raise Unauthorized("The token is signed with a key that is not known.")
            return self._verify(token, key, algorithm)
        except jwt.PyJWTError as error:
            raise Unauthorized(_REASONS.get(type(error), "The token is not valid.")) from error
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise Unauthorized("The token cannot be read.") from error

    def _verify(self, token: str, key: PyJWK, algorithm: str) -> Mapping[str, Any]:
        hashed = sha256(token.encode()).digest()
        verified_by, claims = self.known.get(hashed, (None, {}))
        if verified_by is not key or not self._in_time(claims):
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self.audience,
                issuer=self.issuer,
                leeway=self.leeway,
                options={"require": self.required, "enforce_minimum_key_length": True},
            )
            if len(self.known) >= MOST_KNOWN:
                del self.known[next(iter(self.known))]
            self.known[hashed] = key, claims
        return claims

    def _in_time(self, claims: Mapping[str, Any]) -> bool:
        now, begins = time.time(), max(int(claims.get("iat", 0)), int(claims.get("nbf", 0)))
        return begins - self.leeway <= now < int(claims["exp"]) + self.leeway


# All tokens that a key has signed begin alike. What cannot be read is not kept.
@lru_cache(maxsize=128)
def header_of(segment: str) -> dict[str, Any]:
    """Read the first part of a token. Raises jwt.DecodeError."""
    return jwt.get_unverified_header(f"{segment}..")


def time_of(seconds: float) -> datetime:
    """Read a time of a token. Raises OverflowError or ValueError for one that no calendar has."""
    return datetime.fromtimestamp(int(seconds), UTC)
