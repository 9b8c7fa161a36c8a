"""Lists: offset pages that are bounded and know their total, and searches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, Query
from pydantic import BaseModel, Field

MAXIMUM_PAGE = 100_000
MAXIMUM_SIZE = 100

Item = TypeVar("Item")


class Page(BaseModel, Generic[Item]):
    """One page of a list."""

    items: list[Item]
    total: int = Field(ge=0, description="How many items there are on all pages.", examples=[1])
    page: int = Field(ge=1, description="The number of this page, from 1.", examples=[1])
    size: int = Field(ge=1, description="The most items that a page of this list holds.", examples=[20])
    pages: int = Field(ge=0, description="How many pages there are.", examples=[1])

    @classmethod
    def of(cls, items: Sequence[Any], total: int, request: "PageRequest") -> "Page[Item]":
        """Make the page that answers a request. Raises ValidationError for an item that is not of this page's kind."""
        pages = -(-total // request.size)
        answer = {"items": items, "total": total, "page": request.page, "size": request.size, "pages": pages}
        return cls.model_validate(answer)


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page is asked for."""

    page: int = 1
    size: int = 20

    @property
    def offset(self) -> int:
        """How many items come before the page."""
        return (self.page - 1) * self.size


async def page_request(
    page: Annotated[int, Query(ge=1, le=MAXIMUM_PAGE, description="The number of the page, from 1.")] = 1,
    size: Annotated[int, Query(ge=1, le=MAXIMUM_SIZE, description="Items per page.")] = 20,
) -> PageRequest:
    """Read `?page=1&size=20`."""
    return PageRequest(page, size)


PageQuery = Annotated[PageRequest, Depends(page_request)]
SearchQuery = Annotated[
    str | None, Query(max_length=200, pattern=r"^[^\x00]*$", description="What holds this text, whatever its case.")
]
