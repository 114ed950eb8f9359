"""What stands under one key of a table, read as records: whole, or a page at a time. Rows that are none are passed over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Final, TypeVar

from artcafe.rules.pages import Page, PageRequest
from artcafe.tables import rows
from artcafe.tables.catalog import Table
from artcafe.tables.engine.port import Tables
from artcafe.tables.engine.values import Item

RecordT = TypeVar("RecordT")

MOST_READS: Final = 20
"""Queries for one page. A filter that few records pass ends a page early rather than reading a whole tenant for one request."""

ALL_AT_ONCE: Final = 100
"""Items of a query that reads everything; as many as one transaction deletes."""

_LAST: Final = "\U0010ffff"


class Partition:
    """The items of one partition. `apart` begins the sort keys of rows that are something else than the table's records."""

    def __init__(self, tables: Tables, table: Table, key: str, *, apart: str | None = None) -> None:
        self._tables, self._table, self._key, self._apart = tables, table, key, apart

    async def items(self, prefix: str = "") -> AsyncIterator[Item]:
        """Every item, those that stand apart too."""
        async for items in self.queries(prefix):
            for item in items:
                yield item

    async def queries(self, prefix: str = "") -> AsyncIterator[list[Item]]:
        """Every item, in portions that are not empty; they may be deleted on the way."""
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
        ask: PageRequest,
        read: Callable[[Item], RecordT | None],
        keep: Callable[[RecordT], bool] = lambda _: True,
        prefix: str = "",
    ) -> Page[RecordT]:
        """One page of the records that `keep` lets through. One more than asked for is looked for, so that `next` promises
        something; only a page that took `MOST_READS` queries may be followed by nothing."""
        found: list[tuple[str, RecordT]] = []
        after = ask.after
        for _ in range(MOST_READS):
            page = await self._tables.query(
                self._table, self._key, prefix=prefix, after=after, limit=ask.limit + 1, consistent=True
            )
            found += self._kept(page.items, read, keep)
            if len(found) > ask.limit:
                return Page(tuple(record for _, record in found[: ask.limit]), found[ask.limit - 1][0])
            after = page.next
            if after is not None and self._apart is not None and not prefix and after.startswith(self._apart):
                after = self._apart + _LAST
            if after is None:
                break
        return Page(tuple(record for _, record in found), after)

    def _kept(
        self, items: Iterable[Item], read: Callable[[Item], RecordT | None], keep: Callable[[RecordT], bool]
    ) -> list[tuple[str, RecordT]]:
        """The records of a query that are neither being deleted nor left out, each with its sort key."""
        assert self._table.sort_key is not None
        found: list[tuple[str, RecordT]] = []
        for item in items:
            sort_key, record = item[self._table.sort_key], read(item)
            if record is not None and not rows.is_deleting(item) and keep(record):
                assert isinstance(sort_key, str)
                found.append((sort_key, record))
        return found
