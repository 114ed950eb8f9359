"""Read the records of one partition, all of them or by page. Rows of other kinds are skipped."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Final, TypeVar

from artcafe.rules.pages import Page, PageRequest
from artcafe.tables import rows
from artcafe.tables.catalog import Table
from artcafe.tables.engine.port import Tables
from artcafe.tables.engine.values import Item

RecordT = TypeVar("RecordT")

MAX_READS: Final = 20
"""Queries for one page. A selective filter ends a page early instead of reading a whole tenant for one request."""

ALL_AT_ONCE: Final = 100
"""Items per query when reading everything: as many as one transaction can delete."""

_LAST: Final = "\U0010ffff"


class Partition:
    """The items of one partition. `apart` is the sort key prefix of rows other than the table's records."""

    __slots__ = ("_apart", "_key", "_table", "_tables")

    def __init__(self, tables: Tables, table: Table, key: str, *, apart: str | None = None) -> None:
        self._tables, self._table, self._key, self._apart = tables, table, key, apart

    async def items(self, prefix: str = "") -> AsyncIterator[Item]:
        """Yield every item, including rows with the prefix `apart`."""
        async for items in self.queries(prefix):
            for item in items:
                yield item

    async def queries(self, prefix: str = "") -> AsyncIterator[list[Item]]:
        """Yield every item in non-empty batches; the caller may delete them in between."""
        after: str | None = None
        while True:
            page = await self._tables.query(
                self._table, self._key, prefix=prefix, after=after, limit=ALL_AT_ONCE, consistent=True
            )
            if page.items:
                yield page.items
            after = page.next
            if after is None:
                return

    async def page(
        self,
        page_request: PageRequest,
        read: Callable[[Item], RecordT | None],
        keep: Callable[[RecordT], bool] = lambda _: True,
        prefix: str = "",
    ) -> Page[RecordT]:
        """Return one page of the records accepted by `keep`.

        Looks for one record more than requested, so that a `next` promises another record. Only a page that took `MAX_READS`
        queries may be followed by an empty one.
        """
        found: list[tuple[str, RecordT]] = []
        after = page_request.after
        for _ in range(MAX_READS):
            page = await self._tables.query(
                self._table, self._key, prefix=prefix, after=after, limit=page_request.limit + 1, consistent=True
            )
            found += self._accepted(page.items, read, keep)
            if len(found) > page_request.limit:
                return Page(tuple(record for _, record in found[: page_request.limit]), found[page_request.limit - 1][0])
            after = page.next
            if after is not None and self._apart is not None and not prefix and after.startswith(self._apart):
                after = self._apart + _LAST
            if after is None:
                break
        return Page(tuple(record for _, record in found), after)

    def _accepted(
        self, items: Iterable[Item], read: Callable[[Item], RecordT | None], keep: Callable[[RecordT], bool]
    ) -> list[tuple[str, RecordT]]:
        """Return the accepted records of a query with their sort keys, without those being deleted."""
        assert self._table.sort_key is not None
        found: list[tuple[str, RecordT]] = []
        for item in items:
            sort_key, record = item[self._table.sort_key], read(item)
            if record is not None and not rows.is_deleting(item) and keep(record):
                assert isinstance(sort_key, str)
                found.append((sort_key, record))
        return found
