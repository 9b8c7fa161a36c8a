"""How often somebody may try. Counted by the limiter of the service: in memory, or where all processes count."""

import time
from datetime import datetime
from hashlib import sha256
from typing import NoReturn
from uuid import UUID

from limits import RateLimitItem

from app.kit.errors import AppError
from app.kit.limits import RateLimiter, client_key
from app.kit.logging import get_logger
from app.modules.accounts.settings import AccountSettings

log = get_logger(__name__)


class TooManyTries(AppError):
    """Somebody has tried too often."""

    status = 429

    def __init__(self, reset: float) -> None:
        super().__init__("Too many tries. Wait a while.")
        self.headers = {"Retry-After": str(max(1, round(reset - time.time())))}


class Throttle:
    """Counts tries, whether there is such an account or not."""

    def __init__(self, limiter: RateLimiter, settings: AccountSettings) -> None:
        self.limiter, self.settings = limiter, settings

    async def client(self, address: str) -> None:
        """Count a try of a network address. Raises TooManyTries."""
        await self._count(self.settings.client_limit, "client", client_key(address))

    async def account(self, address: str, password_changed_at: datetime | None = None) -> None:
        """Count a password that is tried for an account, anew for each that it has had. Raises TooManyTries."""
        await self._count(self.settings.account_limit, "account", f"{address} {password_changed_at}")

    async def code(self, user_id: UUID) -> None:
        """Count a code that is tried beside the password of an account. Raises TooManyTries."""
        await self._count(self.settings.account_limit, "code", str(user_id))

    async def mail(self, address: str) -> None:
        """Count a mail that is asked for. Raises TooManyTries."""
        await self._count(self.settings.mail_limit, "mail", address)

    async def _count(self, limit: RateLimitItem, kind: str, name: str) -> None:
        if not self.limiter.enabled:
            return
        # Hashed, so that no store of counters lists who has an account.
        key = limit.key_for("auth", kind, sha256(name.encode()).hexdigest()[:32])
        verdict = await self.limiter.count(limit, key)
        if verdict.used > verdict.limit:
            self._refuse(kind, verdict.used - verdict.limit, verdict.reset)

    def _refuse(self, kind: str, over: int, reset: float) -> NoReturn:
        if over == 1:
            log.warning("too many tries", of=kind)
        raise TooManyTries(reset)
