"""Alembic's environment: the tables of all installed modules, over the same engine as the service."""

import asyncio
from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Connection

from app.installed import MODULES
from app.kit.settings import load
from app.ports.db.database import Database, DatabaseSettings

TABLES = [table for module in MODULES for table in module.tables]


def render_item(kind: str, item: Any, autogen: AutogenContext) -> str | Literal[False]:
    """Write SQLModel's own column types with the import that they need."""
    if kind == "type" and type(item).__module__.startswith("sqlmodel."):
        autogen.imports.add("from sqlmodel.sql import sqltypes")
        return f"sqltypes.{item!r}"
    return False


def migrate(connection: Connection) -> None:
    """Run the revisions on a connection."""
    context.configure(
        connection=connection,
        target_metadata=TABLES[0].metadata,
        render_item=render_item,
        # SQLite cannot alter a column; Alembic then copies the table.
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        context.run_migrations()


async def run() -> None:
    """Open the database of the settings and migrate it."""
    database = Database.open(load(DatabaseSettings))
    try:
        async with database.engine.connect() as connection:
            await connection.run_sync(migrate)
            await connection.commit()
    finally:
        await database.close()


if context.is_offline_mode():
    raise SystemExit("Offline mode is not supported: revisions run on the database of DATABASE_URL.")
asyncio.run(run())
