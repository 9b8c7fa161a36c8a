"""Stamps of forms: they say when a form was loaded, and nobody else can make one."""

import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from hmac import compare_digest, digest
from math import ceil

from app.kit import clock
from app.kit.errors import AppError

PURPOSE = b"contact form 1"
TIME_BYTES, RANDOM_BYTES, SIGNATURE_BYTES = 6, 12, 32


class FormNotGood(AppError):
    """The form was loaded too long ago, has brought another message already, or is not from here."""

    status = 409
    code = "form_not_good"

    def __init__(self) -> None:
        super().__init__("This form is not good any more: load it again, and send the message from there.")


class FormTooSoon(AppError):
    """Nobody fills in a form as quickly as that."""

    status = 409
    code = "form_too_soon"

    def __init__(self, seconds: int) -> None:
        super().__init__(f"The form came back too soon. Wait {seconds} seconds, and send it again.")
        self.headers = {"Retry-After": str(seconds)}


class Stamps:
    """Makes stamps and reads them."""

    def __init__(self, secret_key: str, *, minimum: timedelta, good_for: timedelta) -> None:
        self._key = digest(secret_key.encode(), PURPOSE, "sha256")
        self.minimum, self.good_for = minimum, good_for

    def issue(self) -> tuple[str, datetime]:
        """Make the stamp of a form that is loaded now; with the time until which it is good."""
        now = clock.now()
        stamp = int(now.timestamp() * 1000).to_bytes(TIME_BYTES, "big") + secrets.token_bytes(RANDOM_BYTES)
        return _written(stamp + digest(self._key, stamp, "sha256")), now + self.good_for

    def read(self, written: str) -> str:
        """Return the name of a form that may be sent now. Raises FormNotGood and FormTooSoon."""
        try:
            given = urlsafe_b64decode(written + "=" * (-len(written) % 4))
        except ValueError:
            raise FormNotGood from None
        stamp, signature = given[:-SIGNATURE_BYTES], given[-SIGNATURE_BYTES:]
        good = compare_digest(digest(self._key, stamp, "sha256"), signature)
        if not good or len(stamp) != TIME_BYTES + RANDOM_BYTES:
            raise FormNotGood
        age = clock.now() - datetime.fromtimestamp(int.from_bytes(stamp[:TIME_BYTES], "big") / 1000, UTC)
        if age > self.good_for:
            raise FormNotGood
        if age < self.minimum:
            raise FormTooSoon(ceil((self.minimum - age).total_seconds()))
        return stamp.hex()


def _written(given: bytes) -> str:
    return urlsafe_b64encode(given).rstrip(b"=").decode()
