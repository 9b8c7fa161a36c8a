"""Rows and the queries for them: what all tables share, and the base of the repositories that own every query."""

from datetime import datetime
from typing import Any, ClassVar, Generic, TypeVar
from uuid import UUID

import sqlalchemy
from pydantic import BaseModel
from sqlalchemy import Select, bindparam, func
from sqlmodel import Field, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.kit import clock
from app.kit.ids import new_id
from app.kit.pagination import Page, PageRequest
from app.ports.db.database import Database

SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Record(SQLModel):
    """A row with a UUIDv7 and its times, to inherit from."""

    id: UUID = Field(default_factory=new_id, primary_key=True)
    created_at: datetime = Field(default_factory=clock.now)
    updated_at: datetime = Field(default_factory=clock.now, sa_column_kwargs={"onupdate": clock.now})


class SoftDeleted(SQLModel):
    """A row that is marked when it is deleted, and filtered out from then on."""

    deleted_at: datetime | None = None


Row = TypeVar("Row", bound=Record)
Schema = TypeVar("Schema", bound=BaseModel)


class Repository(Generic[Row]):
    """Finds, adds and deletes the rows of one table, in the session of the request."""

    table: ClassVar[type[SQLModel]]

    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def find(self, id: UUID, *conditions: Any) -> Row | None:
        """Find a row that is not deleted and fulfils the conditions."""
        table: Any = self.table
        statement = select(table).where(table.id == id, *conditions)
        if issubclass(table, SoftDeleted):
            statement = statement.where(col(table.deleted_at).is_(None))
        row: Row | None = (await self.session.exec(statement)).one_or_none()
        return row

    async def add(self, row: Row) -> Row:
        """Insert a row, so that constraints speak up here and not at the commit."""
        self.session.add(row)
        await self.session.flush()
        return row

    async def delete(self, row: Row) -> None:
        """Mark a row as deleted, or remove it when its table has no mark."""
        if isinstance(row, SoftDeleted):
            row.deleted_at = clock.now()
        else:
            await self.session.delete(row)
        await self.session.flush()


def select_fields(table: type[SQLModel], schema: type[BaseModel]) -> Select[Any]:
    """Select just the columns that a schema has fields for: a read needs no entities."""
    return sqlalchemy.select(*(getattr(table, field) for field in schema.model_fields))


class PagedQuery(Generic[Schema]):
    """A list query that is built once and answers one page, with the total, in one round trip."""

    def __init__(self, statement: Select[Any], schema: type[Schema]) -> None:
        self.schema = schema
        self.page: type[Page[Schema]] = Page[schema]  # type: ignore[valid-type]
        self.statement = (
            statement.add_columns(func.count().over().label("total_count"))
            .limit(bindparam("page_limit"))
            .offset(bindparam("page_offset"))
        )

    async def fetch(self, database: Database, page: PageRequest, **parameters: Any) -> Page[Schema]:
        """Fetch a page. Only a page past the end costs a second query, for the total."""
        bound = {**parameters, "page_limit": page.size, "page_offset": page.offset}
        rows = await database.fetch(self.statement, bound)
        items = [self.schema.model_validate(row, from_attributes=True) for row in rows]
        if not rows and page.page > 1:
            rows = await database.fetch(self.statement, {**bound, "page_limit": 1, "page_offset": 0})
        return self.page.of(items, rows[0][-1] if rows else 0, page)


def like_pattern(text: str) -> str:
    r"""Make the LIKE pattern of what contains a text, in lower case; its own % and _ are escaped with \."""
    escaped = text.lower().replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
    return f"%{escaped}%"
