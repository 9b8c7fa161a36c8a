"""Tokens that open something: 256 random bits, of which only the hash is stored."""

import secrets
from hashlib import sha256


def new_token() -> str:
    """Draw a token."""
    return secrets.token_urlsafe(32)


def hash_of(token: str) -> str:
    """Hash a token. What has 256 random bits needs no slow hash: it cannot be guessed."""
    return sha256(token.encode()).hexdigest()
