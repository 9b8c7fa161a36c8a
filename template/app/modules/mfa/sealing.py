"""The secret of an application is sealed, and recovery codes are hashed: both with keys of SECRET_KEY.

Whoever reads the database alone can neither make codes of the day nor find out recovery codes, which are too short for
a hash without a key.
"""

from collections.abc import Sequence
from hmac import digest
from uuid import UUID

from app.kit.sealing import Sealing

SEALING = b"secrets of one-time passwords, 1"
HASHING = b"recovery codes, 1"


class FactorSecrets:
    """Seals and hashes with the first of the secrets, and knows again what any of them has sealed and hashed."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._sealing = Sealing(secrets, SEALING)
        self._hashing = [digest(secret.encode(), HASHING, "sha256") for secret in secrets]

    def seal(self, secret: str, owner: UUID) -> bytes:
        """Encrypt the secret of a user's application."""
        return self._sealing.seal(secret.encode(), owner)

    def unseal(self, sealed: bytes, owner: UUID) -> str | None:
        """Decrypt what was sealed for a user. None where no secret opens it."""
        found = self._sealing.unseal(sealed, owner)
        return found.decode() if found is not None else None

    def hashes(self, code: str, owner: UUID) -> list[str]:
        """Hash a code of a user's with each secret, today's first."""
        return [digest(key, owner.bytes + code.encode(), "sha256").hex() for key in self._hashing]
