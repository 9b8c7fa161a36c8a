"""List queries: one page with the total, in one round trip."""

from typing import Any, Generic, TypeVar

from pydantic import BaseModel
from sqlalchemy import Select, bindparam, func, select

from app.kit.pagination import Page, PageRequest
from app.ports.db.database import Database

Schema = TypeVar("Schema", bound=BaseModel)


class PagedQuery(Generic[Schema]):
    """A list query that is built once and answers one page, with the total, in one round trip."""

    def __init__(self, statement: Select[Any], schema: type[Schema]) -> None:
        self.names = [column.key for column in statement.selected_columns]
        self.page: type[Page[Schema]] = Page[schema]  # type: ignore[valid-type]
        # A window, count(*) OVER (), would make the database carry every row of all pages through the query.
        total = select(func.count()).select_from(statement.order_by(None).subquery()).scalar_subquery()
        self.statement = (
            statement.add_columns(total.label("total_count"))
            .limit(bindparam("page_limit"))
            .offset(bindparam("page_offset"))
        )

    async def fetch(self, database: Database, page: PageRequest, **parameters: Any) -> Page[Schema]:
        """Fetch a page. Only a page past the end costs a second query, for the total."""
        bound = {**parameters, "page_limit": page.size, "page_offset": page.offset}
        rows = await database.fetch(self.statement, bound)
        # Plain dicts: Pydantic takes three times as long to read the attributes of a row.
        items = [dict(zip(self.names, row, strict=False)) for row in rows]
        if not rows and page.page > 1:
            rows = await database.fetch(self.statement, {**bound, "page_limit": 1, "page_offset": 0})
        return self.page.of(items, rows[0][-1] if rows else 0, page)


def like_pattern(text: str) -> str:
    r"""Make the LIKE pattern of what contains a text; its own % and _ are escaped with \.

    To ignore case, lower it in the database, as the column is lowered: Python and every database differ.
    """
    escaped = text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
    return f"%{escaped}%"
