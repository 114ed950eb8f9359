"""Pagination: `limit` and an opaque `cursor` in a request, `items` and `next_cursor` in a response."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self, TypeVar
from urllib.parse import urlencode

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema

from artcafe.rest.dependencies import settings_of
from artcafe.rules import pages, times

T = TypeVar("T")

Time = Annotated[
    datetime,
    PlainSerializer(times.to_text, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-11-22T16:50:57.123Z"]}),
]
"""A time in a response: RFC 3339, UTC, with milliseconds."""

KnownTime = Annotated[Time | None, Field(description="Null for a record of an older system without a readable time.")]
"""The time of an event, which rows of an older system may lack."""


class PageQuery(BaseModel):
    """The query of a list. Unknown parameters are refused, because a misspelt filter would return everything."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int = Field(pages.DEFAULT_LIMIT, ge=1, le=pages.MAX_LIMIT, description="Maximum number of items.")
    cursor: str | None = Field(None, description="The `next_cursor` of the previous page, unchanged, with the same filters.")

    def filters(self) -> dict[str, str]:
        return {name: str(value) for name, value in self if name not in PageQuery.model_fields and value is not None}


class Listing:
    """One request for a page. Its cursors are bound to the owner of the list, the path and the filters."""

    def __init__(self, key: bytes, owner: str, query: str) -> None:
        self._key, self._owner, self._query = key, owner, query
        self.request = pages.PageRequest()

    @classmethod
    def of(cls, request: Request, owner: str, query: PageQuery) -> Self:
        """Parse the query. `owner` is the tenant's id, or `usr:{sub}` for a user's own list. Raises BadCursor and Invalid."""
        listing = cls(
            settings_of(request).page_key, owner, f"{request.scope['path']}?{urlencode(sorted(query.filters().items()))}"
        )
        after = None if query.cursor is None else pages.open(listing._key, owner, listing._query, query.cursor)
        listing.request = pages.PageRequest.checked(query.limit, after)
        return listing

    def next_cursor(self, page: pages.Page[T]) -> str | None:
        return None if page.next is None else pages.seal(self._key, self._owner, self._query, page.next)
