"""What has to be read again, and by nobody who has the database alone, is sealed with a key of SECRET_KEY."""

from collections.abc import Sequence
from hmac import digest
from secrets import token_bytes
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import Field, SecretStr

from app.kit.settings import CoreSettings, ModuleSettings, load

NONCE_BYTES = 12


class SealingSettings(ModuleSettings):
    """Secrets that were."""

    secret_key_fallbacks: SecretStr = Field(
        SecretStr(""), description="Earlier values of SECRET_KEY, separated by commas: what they sealed still opens."
    )

    @property
    def secrets(self) -> list[str]:
        """SECRET_KEY, and then those that it was before."""
        earlier = self.secret_key_fallbacks.get_secret_value().split(",")
        now = load(CoreSettings).secret_key.get_secret_value()
        return [now, *(secret.strip() for secret in earlier if secret.strip())]


class Sealing:
    """Seals with the first of the secrets, and opens what any of them has sealed for the same purpose."""

    def __init__(self, secrets: Sequence[str], purpose: bytes) -> None:
        self._ciphers = [AESGCM(digest(secret.encode(), purpose, "sha256")) for secret in secrets]

    def seal(self, content: bytes, owner: UUID) -> bytes:
        """Encrypt with AES-256-GCM what belongs to a row, such as a user's: it opens for no other one."""
        nonce = token_bytes(NONCE_BYTES)
        return nonce + self._ciphers[0].encrypt(nonce, content, owner.bytes)

    def unseal(self, sealed: bytes, owner: UUID) -> bytes | None:
        """Decrypt what was sealed for this row. None where no secret opens it."""
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], owner.bytes)
            except (InvalidTag, ValueError):
                continue
        return None
