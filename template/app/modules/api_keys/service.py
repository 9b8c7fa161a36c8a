"""Rules for API keys: a program does with one what its owner may do, within its scopes and until it expires."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated, Any, NoReturn
from uuid import UUID

from fastapi import FastAPI
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import HTTPConnection

from app.kit import clock
from app.kit.errors import AppError, NotFound
from app.kit.limits import RateLimiter, client_key
from app.kit.logging import get_logger
from app.kit.pagination import Page, PageRequest
from app.kit.settings import CoreSettings, load
from app.modules.access.schemas import UserDetail
from app.modules.access.service import Caller, Conflict, let_in, require_admin
from app.modules.api_keys.keys import hash_of, hint_of, is_shaped, is_whole, new_key
from app.modules.api_keys.models import ApiKey
from app.modules.api_keys.repository import CALLER, KEY_BY_ID, KEYS, ApiKeyRepository
from app.modules.api_keys.schemas import ApiKeyCreate, ApiKeyCreated, ApiKeyRead
from app.modules.api_keys.scopes import ADMIN, demand_here, method_of
from app.modules.api_keys.settings import ApiKeySettings
from app.ports.db.database import Database, with_reads, with_session
from app.ports.identity.bearer import Unauthorized, VerifiedToken, read_token
from app.ports.identity.identity import Identify, Identity

# Uses are written this often: a request with a key waits for no write.
WRITE_AFTER_SECONDS = 60.0
log = get_logger(__name__)


class KeyNotFound(NotFound):
    """There is no such key, or it is somebody else's."""

    def __init__(self) -> None:
        super().__init__("There is no such key.")


class NotOffered(AppError):
    """A key cannot be made like that."""

    status = 422
    code = "not_offered"


class TooManyWrongKeys(AppError):
    """Somebody tries keys, or a program goes on with one that is no good any more."""

    status = 429

    def __init__(self, reset: float) -> None:
        super().__init__("Too many wrong keys came from this address. Check the key, and wait a while.")
        self.headers = {"Retry-After": str(max(1, round(reset - time.time())))}


class ApiKeyService:
    """Makes keys, and takes them back."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session
        self.keys = ApiKeyRepository(session)
        self.settings = load(ApiKeySettings)

    async def create(self, new: ApiKeyCreate, *, owner: Caller, offered: list[str]) -> ApiKeyCreated:
        """Make a key. Raises NotOffered, Forbidden for scopes of admins, and Conflict when there are too many."""
        if unknown := sorted(set(new.scopes) - set(offered)):
            raise NotOffered(f"There is no scope {', '.join(unknown)}. There are {', '.join(offered)}.")
        if any(scope.startswith(f"{ADMIN}:") for scope in new.scopes):
            await require_admin(owner)
        days = new.expires_in_days or self.settings.api_key_days
        if days > self.settings.api_key_most_days:
            raise NotOffered(f"A key is good for {self.settings.api_key_most_days} days at most.")
        now = clock.now()
        if await self.keys.live(owner.user_id, now) >= self.settings.api_keys_per_user:
            raise Conflict(f"You have {self.settings.api_keys_per_user} keys: revoke one that is not needed.")
        key = new_key(self.settings.api_key_prefix)
        row = await self.keys.add(
            ApiKey(
                user_id=owner.user_id,
                name=new.name,
                hint=hint_of(key),
                key_hash=hash_of(key),
                scopes=" ".join(dict.fromkeys(new.scopes)),
                expires_at=now + timedelta(days=days),
            )
        )
        log.info("key made", api_key=str(row.id), user=str(owner.user_id), scopes=row.scopes)
        return ApiKeyCreated.model_validate({**row.model_dump(), "key": key})

    async def revoke(self, id: UUID, *, owner: UUID) -> None:
        """Take a key back: it is good for nothing from the next request on. Raises KeyNotFound."""
        row = await self.keys.find(id, col(ApiKey.user_id) == owner, col(ApiKey.revoked_at).is_(None))
        if row is None:
            raise KeyNotFound
        await self._revoke(row)

    async def revoke_found(self, key: str) -> ApiKey | None:
        """Take back a key that is known by itself or by its id, whoever owns it."""
        row = await self.keys.known_as(key)
        if row is not None:
            await self._revoke(row)
        return row

    async def _revoke(self, row: ApiKey) -> None:
        row.revoked_at = clock.now()
        await self.session.flush()
        log.info("key revoked", api_key=str(row.id), user=str(row.user_id))


class ApiKeyReader:
    """Reads keys without a transaction."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def page(self, page: PageRequest, *, owner: UUID) -> Page[ApiKeyRead]:
        """List the keys of an owner that were not taken back, the newest first."""
        return await KEYS.fetch(self.database, page, user_id=owner)

    async def get(self, id: UUID, *, owner: UUID) -> ApiKeyRead:
        """Get one key. Raises KeyNotFound."""
        rows = await self.database.fetch(KEY_BY_ID, {"key_id": id, "user_id": owner})
        if not rows:
            raise KeyNotFound
        return ApiKeyRead.model_validate(rows[0])


class Uses:
    """When keys were last used, until it is written."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self._times: dict[UUID, datetime] = {}

    def note(self, id: UUID) -> None:
        """Remember that a key is used now."""
        self._times[id] = clock.now()

    async def write(self) -> None:
        """Write what was noted."""
        times, self._times = self._times, {}
        if times:
            database: Database = self.app.state.database
            try:
                async with database.session() as session:
                    await ApiKeyRepository(session).mark_used(times)
            except Exception as error:
                self._times = times | self._times
                log.warning("uses of keys not written", error=type(error).__name__)

    async def keep_writing(self) -> None:
        """Write every now and then."""
        while True:
            await asyncio.sleep(WRITE_AFTER_SECONDS)
            await self.write()


async def refuse(connection: HTTPConnection, reason: str) -> NoReturn:
    """Refuse a wrong key, and count it for its address. A good one from there is let in all the same."""
    limiter: RateLimiter = connection.app.state.limiter
    if limiter.enabled:
        limit = load(ApiKeySettings).wrong_limit
        address = client_key(connection.client.host) if connection.client else "unknown"
        verdict = await limiter.count(limit, limit.key_for("api-keys", address))
        if (over := verdict.used - verdict.limit) > 0:
            if over == 1:
                log.warning("too many wrong keys", client=address)
            raise TooManyWrongKeys(verdict.reset)
    raise Unauthorized(reason)


async def caller_of(connection: HTTPConnection, key: str) -> Caller:
    """Let the owner of a key in: one query. Raises Unauthorized, and Forbidden as for a token of theirs or by scope."""
    if not is_whole(key):
        await refuse(connection, "The key has been cut short or mistyped.")
    rows = await connection.app.state.database.fetch(CALLER, {"key_hash": hash_of(key), "now": clock.now()})
    if not rows:
        await refuse(connection, "The key has expired, has been revoked, or never was one.")
    found = dict(rows[0]._mapping)
    id, scopes, expires_at = found.pop("key_id"), found.pop("scopes"), found.pop("expires_at")
    user = UserDetail.model_construct(**found)
    token = VerifiedToken(
        subject=user.subject,
        email=user.email,
        email_verified=user.email_verified,
        name=user.display_name,
        role=None,
        claims={},
        token_id=str(id),
        issued_at=None,
        expires_at=expires_at,
    )
    caller = replace(let_in(user, token, method_of(connection)), scopes=frozenset(scopes.split(" ")))
    connection.app.state.key_uses.note(id)
    demand_here(connection, caller.scopes or ())
    return caller


def with_keys(others: Identify) -> Identify:
    """Know callers by their keys, and otherwise as before."""

    async def identify(connection: HTTPConnection) -> Identity:
        _, _, given = connection.headers.get("authorization", "").partition(" ")
        if is_shaped(given.strip(" ")):
            return await caller_of(connection, read_token(connection))
        return await others(connection)

    return identify


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Let keys in beside what the provider of identity vouches for."""
    app.state.identify = with_keys(app.state.identify)
    app.state.key_uses = uses = Uses(app)
    # In tests nothing runs by itself: they share one connection, on which two transactions would get mixed up.
    tested = load(CoreSettings).environment == "test"
    writing = [] if tested else [asyncio.create_task(uses.keep_writing())]
    try:
        yield
    finally:
        for task in writing:
            task.cancel()
        await asyncio.gather(*writing, return_exceptions=True)
        await uses.write()


async def export(session: AsyncSession, user_id: UUID) -> list[dict[str, Any]]:
    """Return the keys of a user, also those that are revoked, but nothing that lets anybody in."""
    rows = await ApiKeyRepository(session).owned(user_id)
    return [row.model_dump(exclude={"user_id", "key_hash"}) for row in rows]


async def revoke_all(session: AsyncSession, user_id: UUID) -> None:
    """Take all keys of a user back who is deactivated: who is let in again makes new ones."""
    await ApiKeyRepository(session).revoke_all(user_id, clock.now())


ApiKeys = Annotated[ApiKeyService, with_session(ApiKeyService)]
ApiKeyReads = Annotated[ApiKeyReader, with_reads(ApiKeyReader)]
