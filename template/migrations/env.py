"""Alembic's environment: the tables of all installed modules, over the same engine as the service."""

import asyncio
from pathlib import Path
from typing import Any

from alembic import context
from alembic.operations import ops
from sqlalchemy import Connection, event

from app.installed import MODULES
from app.kit.errors import Unavailable
from app.kit.settings import SettingsError, load
from app.ports.db.database import Database, DatabaseSettings

METADATA = next(table.metadata for module in MODULES for table in module.tables)
DROP = context.get_x_argument(as_dictionary=True).get("drop", "").split(",")
kept: dict[str, Any] = {}


def may_go(item: Any, name: str | None, kind: str, from_database: bool, _in_code: Any) -> bool:
    """Keep tables and columns that only the database has, with their data, unless `-x drop=` names them."""
    path = f"{item.table.name}.{name}" if kind == "column" else str(name)
    if kind not in {"table", "column"} or not from_database or path in DROP:
        return True
    kept[path] = item
    return False


def complete(_context: Any, _revision: Any, directives: list[Any]) -> None:
    """Number a new revision after the last one, so that the files sort as they apply, and say what it keeps."""
    numbers = [int(path.name[:4]) for path in Path(__file__).parent.glob("versions/[0-9][0-9][0-9][0-9]_*.py")]
    directives[0].rev_id = f"{max(numbers, default=0) + 1:04}"
    changes, names = directives[0].upgrade_ops, ",".join(sorted(kept))
    for column in kept.values():
        if not getattr(column, "nullable", True) and column.server_default is None:
            # No code writes it any more.
            empty = ops.AlterColumnOp(column.table.name, column.name, existing_type=column.type, modify_nullable=True)
            changes.ops.append(ops.ModifyTableOps(column.table.name, [empty]))
    if getattr(context.config.cmd_opts, "autogenerate", False):
        for new in [op for table in changes.ops for op in getattr(table, "ops", ()) if isinstance(op, ops.AddColumnOp)]:
            if not new.column.nullable and new.column.server_default is None:
                name = f"{new.table_name}.{new.column.name}"
                context.config.print_stdout(f"Required, and no row has it yet: {name}. Give it a server_default.")
        if kept:
            context.config.print_stdout(f"Only in the database: {names}. To drop it: make migrate m=drop drop={names}")
        if changes.is_empty():
            context.config.print_stdout("The tables are those of the code: there is nothing to write.")
            directives.clear()


def refuse_orphans(ctx: Any, *_: Any, **__: Any) -> None:
    """End a revision that would leave rows without their parents; SQLite does not see to that meanwhile."""
    if ctx.dialect.name == "sqlite" and ctx.connection.exec_driver_sql("PRAGMA foreign_key_check").first():
        raise SystemExit("The revision leaves rows whose parents are gone. It has not been applied.")


def migrate(connection: Connection) -> None:
    """Run the revisions on a connection."""
    context.configure(
        connection=connection,
        target_metadata=METADATA,
        include_object=may_go,
        process_revision_directives=complete,
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
except Unavailable as error:
    raise SystemExit(f"{error.__cause__ or error}\nCheck that DATABASE_URL names a database that is there.") from None
