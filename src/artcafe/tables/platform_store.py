"""Rows of all tenants, for the operator's requests: which tenants are suspended."""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple

from artcafe.model import TenantId, TenantStatus
from artcafe.rules.pages import Page, PageRequest
from artcafe.tables import limit_rows, rows
from artcafe.tables.attributes import text, time
from artcafe.tables.catalog import TENANTS
from artcafe.tables.engine.conditions import And, Equals, NotEquals
from artcafe.tables.engine.port import Tables

SCANNED_ROWS: Final = 1000
"""Rows of the tenants' table read for one page, at most 1 MB of them: bounded, however few tenants are suspended."""

_IS_SUSPENDED: Final = And(Equals("status", TenantStatus.SUSPENDED.value), NotEquals(rows.DELETING, True))


class SuspendedTenant(NamedTuple):
    """A suspended tenant, without anything that its members wrote. `suspended_at` is None if its row was changed by hand."""

    id: TenantId
    plan: str
    suspended_at: datetime | None
    created_at: datetime | None


class PlatformStore:
    """Reads of the rows of all tenants. The caller must be an operator: a page reads, and pays for, up to `SCANNED_ROWS` rows."""

    __slots__ = ("_tables",)

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def suspended_tenants(self, page_request: PageRequest) -> Page[SuspendedTenant]:
        """Return a page of the suspended tenants, in the engine's order. It may be empty and have a `next`."""
        found = await self._tables.scan_page(TENANTS, after=page_request.after, limit=SCANNED_ROWS, where=_IS_SUSPENDED)
        items = found.items[: page_request.limit]
        # Any key continues a scan, also one whose row is gone.
        end = found.next if len(items) == len(found.items) else text(items[-1], "id")
        tenants = (
            SuspendedTenant(
                TenantId(text(item, "id")), limit_rows.plan_of(item), time(item, rows.SUSPENDED_AT), time(item, "created_at")
            )
            for item in items
        )
        return Page(tuple(tenants), end)
