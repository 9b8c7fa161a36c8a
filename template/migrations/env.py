"""Alembic's environment: the tables of all installed modules, over the same engine as the service."""

import asyncio
from pathlib import Path
from typing import Any

from alembic import context
from sqlalchemy import Connection, event

from app.installed import MODULES
from app.kit.settings import SettingsError, load
from app.ports.db.database import Database, DatabaseSettings


def number(_context: Any, _revision: Any, directives: list[Any]) -> None:
    """Give a new revision the number after the last one, so that the files sort in the order in which they apply."""
    numbers = [int(path.name[:4]) for path in Path(__file__).parent.glob("versions/[0-9][0-9][0-9][0-9]_*.py")]
    directives[0].rev_id = f"{max(numbers, default=0) + 1:04}"


def refuse_orphans(ctx: Any, *_: Any, **__: Any) -> None:
    """End a revision that would leave rows without their parents; SQLite does not see to that meanwhile."""
    if ctx.dialect.name == "sqlite" and ctx.connection.exec_driver_sql("PRAGMA foreign_key_check").first():
        raise SystemExit("The revision leaves rows whose parents are gone. It has not been applied.")


def migrate(connection: Connection) -> None:
    """Run the revisions on a connection."""
    context.configure(
        connection=connection,
        target_metadata=next(table.metadata for module in MODULES for table in module.tables),
        process_revision_directives=number,
        on_version_apply=refuse_orphans,
        # A revision runs on every database: SQLite cannot alter a column, so Alembic then copies the table.
        render_as_batch=True,
    )
    with context.begin_transaction():
        context.run_migrations()


async def run() -> None:
    """Open the database of the settings and migrate it."""
    database = Database.open(load(DatabaseSettings))
    if database.engine.dialect.name == "sqlite":
        # Dropping the old table after such a copy would delete the rows that belong to its rows.
        event.listen(database.engine.sync_engine, "connect", lambda raw, _: raw.execute("PRAGMA foreign_keys = OFF"))
    try:
        async with database.engine.connect() as connection:
            await connection.run_sync(migrate)
    finally:
        await database.close()


if context.is_offline_mode():
    raise SystemExit("Offline mode is not supported: revisions run on the database of DATABASE_URL.")
try:
    asyncio.run(run())
except SettingsError as error:
    raise SystemExit(f"The settings are not right:\n{error}") from None
