"""Capacity units by DynamoDB's published rules, and an engine wrapper to meter requests with them.

Source: developer guide, "DynamoDB read and write operations" and "Capacity unit consumption". The units DynamoDB itself reports
for a request are in `dynamodb.client.Consumed`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil
from typing import Final

from artcafe.tables.catalog import Table
from artcafe.tables.engine.conditions import Condition
from artcafe.tables.engine.port import ItemPage, Tables
from artcafe.tables.engine.values import Item, size_of
from artcafe.tables.engine.writes import Delete, ItemKey, Put, Update, Write

READ_BYTES: Final = 4096
WRITE_BYTES: Final = 1024
TRANSACTED: Final = 2
"""A transaction writes each item twice: prepare and commit."""
ROW_BYTES: Final = 100
"""Bytes DynamoDB charges for a stored item in addition to the item's own size."""


def item_bytes(item: Item | None) -> int:
    """Return the billed size of an item in bytes: attribute names and values."""
    return 0 if item is None else sum(len(name.encode()) + size_of(value) for name, value in item.items())


def read_units(size_bytes: int, *, consistent: bool) -> float:
    """Return the units of one read. Even an empty read costs one unit; an eventually consistent read costs half."""
    units = max(1, ceil(size_bytes / READ_BYTES))
    return units if consistent else units / 2


def write_units(before: Item | None, after: Item | None) -> int:
    """Return the units of one write: the larger of the item's sizes before and after."""
    return max(1, ceil(max(item_bytes(before), item_bytes(after)) / WRITE_BYTES))


class Units:
    """A running total of read and write units."""

    def __init__(self) -> None:
        self.reads = self.writes = 0.0


class MeteredTables:
    """An engine wrapper: adds the cost of each request on DynamoDB to `units`. For one caller at a time."""

    def __init__(self, tables: Tables, units: Units) -> None:
        self._tables, self._units = tables, units

    async def get(self, table: Table, keys: Sequence[ItemKey], *, consistent: bool = False) -> list[Item | None]:
        """Read items as `Tables.get` does; each item counts as a separate read."""
        found = await self._tables.get(table, keys, consistent=consistent)
        self._units.reads += sum(read_units(item_bytes(item), consistent=consistent) for item in found)
        return found

    async def query(
        self,
        table: Table,
        partition: str,
        *,
        prefix: str = "",
        after: str | None = None,
        limit: int = 50,
        descending: bool = False,
        where: Condition | None = None,
        consistent: bool = False,
    ) -> ItemPage:
        """Query as `Tables.query` does; all items of the page count as one read, including items filtered out by `where`."""
        more = {"prefix": prefix, "after": after, "limit": limit, "descending": descending, "consistent": consistent}
        read = await self._tables.query(table, partition, **more)  # type: ignore[arg-type]  # they are the arguments above
        self._units.reads += read_units(sum(map(item_bytes, read.items)), consistent=consistent)
        return read if where is None else await self._tables.query(table, partition, where=where, **more)  # type: ignore[arg-type]  # as above

    async def scan_page(
        self, table: Table, *, after: str | None = None, limit: int = 1000, where: Condition | None = None
    ) -> ItemPage:
        """Scan as `Tables.scan_page` does; all items of the page count as one read, including items filtered out by `where`."""
        read = await self._tables.scan_page(table, after=after, limit=limit)
        self._units.reads += read_units(sum(map(item_bytes, read.items)), consistent=True)
        return read if where is None else await self._tables.scan_page(table, after=after, limit=limit, where=where)

    async def put(self, write: Put) -> None:
        """Write an item as `Tables.put` does."""
        before = await self._before([write])
        try:
            await self._tables.put(write)
        finally:
            await self._written([write], before)

    async def update(self, write: Update) -> Item:
        """Update an item as `Tables.update` does."""
        before = await self._before([write])
        try:
            return await self._tables.update(write)
        finally:
            await self._written([write], before)

    async def delete(self, write: Delete) -> Item | None:
        """Delete an item as `Tables.delete` does."""
        before = await self._before([write])
        try:
            return await self._tables.delete(write)
        finally:
            await self._written([write], before)

    async def transact(self, writes: Sequence[Write]) -> None:
        """Run a transaction as `Tables.transact` does, at twice the price; a check costs as much as a write."""
        before = await self._before(writes)
        try:
            await self._tables.transact(writes)
        finally:
            await self._written(writes, before, times=TRANSACTED)

    async def close(self) -> None:
        """Close the wrapped engine."""
        await self._tables.close()

    async def _before(self, writes: Iterable[Write]) -> list[Item | None]:
        return [(await self._tables.get(write.table, [write.key], consistent=True))[0] for write in writes]

    async def _written(self, writes: Sequence[Write], before: Sequence[Item | None], times: int = 1) -> None:
        """Add the units of the writes. DynamoDB also charges for failed writes."""
        after = await self._before(writes)
        self._units.writes += times * sum(write_units(*both) for both in zip(before, after, strict=True))
