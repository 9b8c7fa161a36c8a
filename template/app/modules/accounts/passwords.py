"""Passwords: which are good, and how they are kept: with Argon2id (RFC 9106) and the parameters that OWASP advises."""

import asyncio
import re
import secrets
import unicodedata
from base64 import b64encode
from collections.abc import Callable, Iterable
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from app.kit.errors import AppError, Unavailable
from app.modules.accounts.settings import AccountSettings

# Who comes when so many wait already would wait for too long.
MOST_WAITING = 64
# A guesser who knows what people choose needs 10^8 guesses or more (the scale of zxcvbn, from 0 to 4).
LEAST_SCORE = 3
# What an estimate looks at: its time grows faster than the length.
LOOKED_AT = 64
LEAST_OF_ONES_OWN = 8
Result = TypeVar("Result")


class WeakPassword(AppError):
    """The password would be guessed."""

    status = 422
    code = "weak_password"


class Passwords:
    """Hashes and checks passwords in threads, a few at a time, because each takes memory and a processor."""

    def __init__(self, settings: AccountSettings) -> None:
        memory, iterations = settings.auth_argon2_memory_kib, settings.auth_argon2_iterations
        self.hasher = PasswordHasher(time_cost=iterations, memory_cost=memory, parallelism=1)
        salt, digest = (b64encode(secrets.token_bytes(size)).rstrip(b"=").decode() for size in (16, 32))
        # No password has this hash. Looking for one takes as long as for any other.
        self.nobodys = f"$argon2id$v=19$m={memory},t={iterations},p=1${salt}${digest}"
        self._slots = asyncio.Semaphore(settings.auth_argon2_at_a_time)
        self._waiting = 0

    async def hash(self, password: str, *, known: Iterable[str | None] = ()) -> str:
        """Hash a new password. Raises WeakPassword for one that is common, or made of what is known of its owner."""
        return await self._run(self._hash, password, [word for word in known if word])

    async def verify(self, stored: str | None, password: str) -> bool:
        """Tell whether a password is the right one. Without a stored hash it takes as long, and is not."""
        return await self._run(self._verify, stored or self.nobodys, password) and stored is not None

    def outdated(self, stored: str) -> bool:
        """Tell whether a hash was made with other parameters than today's."""
        return self.hasher.check_needs_rehash(stored)

    async def rehash(self, password: str) -> str:
        """Hash a password that was right."""
        return await self._run(self.hasher.hash, prepared(password))

    def _hash(self, password: str, known: list[str]) -> str:
        check_strength(password, known)
        return self.hasher.hash(prepared(password))

    def _verify(self, stored: str, password: str) -> bool:
        try:
            return self.hasher.verify(stored, prepared(password))
        except (VerifyMismatchError, VerificationError, InvalidHashError):
            return False

    async def _run(self, work: Callable[..., Result], *arguments: object) -> Result:
        if self._waiting >= MOST_WAITING:
            raise Unavailable("Too many people are signing in at the moment. Try again shortly.")
        self._waiting += 1
        try:
            async with self._slots:
                return await asyncio.to_thread(work, *arguments)
        finally:
            self._waiting -= 1


def prepared(password: str) -> str:
    """Write a password in the one way that all keyboards' ways lead to (NIST SP 800-63B, 3.1.1.2)."""
    return unicodedata.normalize("NFKC", password)


def check_strength(password: str, known: Iterable[str]) -> None:
    """Refuse a password that guessers try early, or that is little more than its owner's data. Raises WeakPassword."""
    # It reads its list of common passwords when it is imported.
    from zxcvbn_rs_py import zxcvbn

    words = sorted({part for text in known for part in (text, *re.split(r"[\W_]+", text)) if len(part) >= 3}, key=len)
    rest = prepared(password).casefold()
    for word in reversed(words):
        rest = rest.replace(prepared(word).casefold(), "")
    if len(rest) < LEAST_OF_ONES_OWN:
        raise WeakPassword(
            "The password is made of your name or address. Take some words that have nothing to do with you."
        )
    if int(zxcvbn(prepared(password)[:LOOKED_AT], words).score) < LEAST_SCORE:
        raise WeakPassword("The password is easy to guess: it is common, or repeats itself. Take some unrelated words.")
