"""Rows and the queries for them: what all tables share, and the base of the repositories that own every query."""

from datetime import datetime
from typing import Any, ClassVar, Generic, TypeVar
from uuid import UUID

import sqlalchemy
from pydantic import BaseModel
from sqlalchemy import DateTime, Select, type_coerce
from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.sqltypes import UTCDateTime

from app.kit import clock
from app.kit.ids import new_id

SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


# Of the drivers only SQLite's gives times without a zone; looking at every one of a list again takes its time.
_READ_TIME = DateTime(timezone=True).with_variant(UTCDateTime(), "sqlite")


class Record(SQLModel):
    """A row with a UUIDv7 and its times, to inherit from."""

    id: UUID = Field(default_factory=new_id, primary_key=True)
    created_at: datetime = Field(default_factory=clock.now)
    updated_at: datetime = Field(default_factory=clock.now, sa_column_kwargs={"onupdate": clock.now})


Row = TypeVar("Row", bound=Record)


class Repository(Generic[Row]):
    """Finds, adds and deletes the rows of one table, in the session of the request."""

    table: ClassVar[type[SQLModel]]

    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def find(self, id: UUID, *conditions: Any) -> Row | None:
        """Find a row that fulfils the conditions."""
        table: Any = self.table
        row: Row | None = (await self.session.exec(select(table).where(table.id == id, *conditions))).one_or_none()
        return row

    async def add(self, row: Row) -> Row:
        """Insert a row, so that constraints speak up here and not at the commit."""
        self.session.add(row)
        await self.session.flush()
        return row

    async def delete(self, row: Row) -> None:
        """Remove a row."""
        await self.session.delete(row)
        await self.session.flush()


def select_fields(table: type[SQLModel], schema: type[BaseModel]) -> Select[Any]:
    """Select just the columns that a schema has fields for: a read needs no entities."""
    columns = [getattr(table, field) for field in schema.model_fields]
    return sqlalchemy.select(
        *(type_coerce(it, _READ_TIME).label(it.key) if isinstance(it.type, UTCDateTime) else it for it in columns)
    )
