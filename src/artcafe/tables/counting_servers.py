"""The servers that count usage in memory: one row for each run of a server process, in a partition of no tenant.

The row says until when the counts of the run are written. A server that stops in order deletes its row; the row of a killed one
remains, and shows readers which periods lack something.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, NamedTuple

from artcafe.model import TenantId
from artcafe.rules import times
from artcafe.tables.attributes import text, time
from artcafe.tables.catalog import USAGE_METRICS
from artcafe.tables.engine.port import Tables
from artcafe.tables.engine.values import Item
from artcafe.tables.engine.writes import Delete, ItemKey, Put
from artcafe.tables.partition import Partition

SERVERS: Final = TenantId("~servers")
"""The partition of these rows. No tenant has this id: those of ArtCafe have a prefix."""
KEPT: Final = timedelta(days=400)
"""As long as the rows of days."""


class CountingServer(NamedTuple):
    """One run of a server process. Its counts are written up to `written_until`."""

    run: str
    written_until: datetime


class CountingServers:
    """The rows of all servers."""

    __slots__ = ("_partition", "_tables")

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._partition = Partition(tables, USAGE_METRICS, SERVERS)

    async def note_written(self, run: str, until: datetime) -> None:
        """Record that a run has written everything that it counted before this time. May be repeated."""
        item: Item = {
            "tenant_id": SERVERS,
            "metric_id": run,
            "timestamp": times.to_text(until),
            "ttl": int((until + KEPT).timestamp()),
        }
        await self._tables.put(Put(USAGE_METRICS, item))

    async def end(self, run: str) -> None:
        """Delete the row of a run that has written everything. May be repeated."""
        await self._tables.delete(Delete(USAGE_METRICS, ItemKey(SERVERS, run)))

    async def all(self) -> list[CountingServer]:
        """Return the running servers, and those that were killed."""
        found = []
        async for item in self._partition.items():
            until = time(item, "timestamp")
            if until is not None:
                found.append(CountingServer(text(item, "metric_id"), until))
        return found
