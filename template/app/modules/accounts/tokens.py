"""Tokens that open something: 256 random bits, of which only the hash is stored."""

import secrets
from base64 import urlsafe_b64encode
from hashlib import sha256
from hmac import digest


def new_token() -> str:
    """Draw a token."""
    return secrets.token_urlsafe(32)


def token_after(token: str, key: bytes) -> str:
    """Make the token that follows another: always the same one, and nobody without the key can tell which."""
    return urlsafe_b64encode(digest(key, token.encode(), "sha256")).rstrip(b"=").decode()


def hash_of(token: str) -> str:
    """Hash a token. What has 256 random bits needs no slow hash: it cannot be guessed."""
    return sha256(token.encode()).hexdigest()
