"""The bare probe: the least code that answers like a service, to measure the service against.

It runs in the environment of a service, on its database: `python probe.py URL PORT`. Queries are written by hand, and
there is no middleware, no log and no response model; the answers are the same JSON.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import UUID

import uvicorn  # type: ignore[import-not-found, unused-ignore]
from fastapi import FastAPI, Request, Response  # type: ignore[import-not-found, unused-ignore]
from pydantic_core import to_json

POOL_SIZE = 4
OWNER = UUID(int=1)
USER = ("role", "is_active", "email_verified", "email", "display_name", "id", "created_at", "updated_at")
USER_BY = f"SELECT {', '.join(USER)} FROM users WHERE subject ="  # noqa: S608
STARTED = time.monotonic()


class Store(Protocol):
    """The queries that a page of projects and the caller's own record take."""

    async def page(self, size: int, offset: int) -> tuple[list[dict[str, Any]], int]:
        """Fetch the rows of a page, and the total."""

    async def me(self) -> dict[str, Any]:
        """Fetch the caller's record."""

    async def user(self, subject: str) -> dict[str, Any]:
        """Fetch the record of whom a token names, with their access."""


@dataclass
class PostgreSQL:
    """Raw asyncpg."""

    pool: Any

    async def page(self, size: int, offset: int) -> tuple[list[dict[str, Any]], int]:
        """Fetch the rows of a page, and the total."""
        async with self.pool.acquire() as connection:
            rows = await connection.fetch(
                "SELECT id, name, description, created_at, updated_at FROM projects"
                " WHERE owner_id = $1 AND deleted_at IS NULL ORDER BY id DESC LIMIT $2 OFFSET $3",
                OWNER,
                size,
                offset,
            )
            total = await connection.fetchval(
                "SELECT count(*) FROM projects WHERE owner_id = $1 AND deleted_at IS NULL", OWNER
            )
        return [dict(row) for row in rows], total

    async def me(self) -> dict[str, Any]:
        """Fetch the caller's record."""
        async with self.pool.acquire() as connection:
            row = await connection.fetchrow(
                "SELECT id, email, display_name, created_at, updated_at FROM users WHERE id = $1", OWNER
            )
        return dict(row)

    async def user(self, subject: str) -> dict[str, Any]:
        """Fetch the record of whom a token names, with their access."""
        async with self.pool.acquire() as connection:
            row = await connection.fetchrow(f"{USER_BY} $1", subject)
        return dict(row)


@dataclass
class SQLite:
    """Raw aiosqlite."""

    pool: asyncio.LifoQueue[Any]

    async def page(self, size: int, offset: int) -> tuple[list[dict[str, Any]], int]:
        """Fetch the rows of a page, and the total."""
        connection = await self.pool.get()
        try:
            rows = await connection.execute_fetchall(
                "SELECT id, name, description, created_at, updated_at FROM projects"
                " WHERE owner_id = ? AND deleted_at IS NULL ORDER BY id DESC LIMIT ? OFFSET ?",
                (OWNER.hex, size, offset),
            )
            ((total,),) = await connection.execute_fetchall(
                "SELECT count(*) FROM projects WHERE owner_id = ? AND deleted_at IS NULL", (OWNER.hex,)
            )
        finally:
            self.pool.put_nowait(connection)
        items = [
            {
                "id": UUID(row[0]),
                "name": row[1],
                "description": row[2],
                "created_at": aware(row[3]),
                "updated_at": aware(row[4]),
            }
            for row in rows
        ]
        return items, total

    async def me(self) -> dict[str, Any]:
        """Fetch the caller's record."""
        connection = await self.pool.get()
        try:
            (row,) = await connection.execute_fetchall(
                "SELECT id, email, display_name, created_at, updated_at FROM users WHERE id = ?", (OWNER.hex,)
            )
        finally:
            self.pool.put_nowait(connection)
        return {
            "id": UUID(row[0]),
            "email": row[1],
            "display_name": row[2],
            "created_at": aware(row[3]),
            "updated_at": aware(row[4]),
        }

    async def user(self, subject: str) -> dict[str, Any]:
        """Fetch the record of whom a token names, with their access."""
        connection = await self.pool.get()
        try:
            (row,) = await connection.execute_fetchall(f"{USER_BY} ?", (subject,))
        finally:
            self.pool.put_nowait(connection)
        found = dict(zip(USER, row, strict=True))
        found |= {name: bool(found[name]) for name in ("is_active", "email_verified")}
        times = {name: aware(found[name]) for name in ("created_at", "updated_at")}
        return found | times | {"id": UUID(found["id"])}


def aware(stored: str) -> datetime:
    """Read a time as the service writes it to SQLite: in UTC, without saying so."""
    return datetime.fromisoformat(stored).replace(tzinfo=UTC)


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[Store]:
    """Open the pool of the database that a URL names."""
    async with AsyncExitStack() as stack:
        if url.startswith("postgresql"):
            import asyncpg  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: PLC0415

            pool = await stack.enter_async_context(asyncpg.create_pool(url, min_size=POOL_SIZE, max_size=POOL_SIZE))
            yield PostgreSQL(pool)
        else:
            import aiosqlite  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415

            connections: asyncio.LifoQueue[Any] = asyncio.LifoQueue()
            for _ in range(POOL_SIZE):
                path = url.removeprefix("sqlite:///")
                connections.put_nowait(await stack.enter_async_context(aiosqlite.connect(path)))
            yield SQLite(connections)


def create_app(url: str) -> Any:
    """Build the application."""

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        async with connect(url) as app.state.store:
            yield

    app = FastAPI(lifespan=lifespan)

    async def health() -> dict[str, str | float]:
        now, uptime = datetime.now(UTC).isoformat(), time.monotonic() - STARTED
        return {"status": "healthy", "timestamp": now, "version": "0.1.0", "uptime_seconds": round(uptime, 3)}

    async def me() -> Any:
        store: Store = app.state.store
        return Response(to_json(await store.me()), media_type="application/json")

    async def user(request: Request) -> Any:
        import jwt  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415

        store: Store = app.state.store
        claims = jwt.decode(
            request.headers["authorization"].removeprefix("Bearer "),
            os.environ["TOKEN_KEY"],
            algorithms=["RS256"],
            audience=os.environ["TOKEN_AUDIENCE"],
            issuer=os.environ["TOKEN_ISSUER"],
        )
        found = await store.user(f"{claims['iss']}|{claims['sub']}")
        return Response(to_json(found), media_type="application/json")

    async def projects(page: int = 1, size: int = 20) -> Any:
        store: Store = app.state.store
        items, total = await store.page(size, (page - 1) * size)
        body = {"items": items, "total": total, "page": page, "size": size, "pages": -(-total // size)}
        return Response(to_json(body), media_type="application/json")

    # The paths of the service; decorators of a library that the type checker cannot see would hide the types.
    app.add_api_route("/health", health)
    app.add_api_route("/api/v1/app/users/me", user if "TOKEN_KEY" in os.environ else me)
    app.add_api_route("/api/v1/app/projects", projects)
    return app


if __name__ == "__main__":
    uvicorn.run(create_app(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]), log_config=None, access_log=False)
