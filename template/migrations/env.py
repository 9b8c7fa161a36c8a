"""Alembic's environment: the tables of all installed modules, over the same engine as the service."""

import asyncio
from pathlib import Path
from typing import Any

from alembic import context
from sqlalchemy import Connection

from app.installed import MODULES
from app.kit.settings import SettingsError, load
from app.ports.db.database import Database, DatabaseSettings


def number(_context: Any, _revision: Any, directives: list[Any]) -> None:
    """Give a new revision the number after the last one, so that the files sort in the order in which they apply."""
    numbers = [int(path.name[:4]) for path in Path(__file__).parent.glob("versions/[0-9][0-9][0-9][0-9]_*.py")]
    directives[0].rev_id = f"{max(numbers, default=0) + 1:04}"


def migrate(connection: Connection) -> None:
    """Run the revisions on a connection."""
    context.configure(
        connection=connection,
        target_metadata=next(table.metadata for module in MODULES for table in module.tables),
        process_revision_directives=number,
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
try:
    asyncio.run(run())
except SettingsError as error:
    raise SystemExit(f"The settings are not right:\n{error}") from None
