"""Calls for what a tenant used."""

from __future__ import annotations

from typing import Literal

from artcafe.sdk.http import PAGE, given
from artcafe.sdk.tenant_calls import TenantCalls
from artcafe.sdk.usage_records import Recounted, Usage, UsagePage


class UsageCalls(TenantCalls):
    """What a tenant used, by period."""

    async def get(
        self,
        *,
        period: str | None = None,
        metric: str | None = None,
        by: Literal["agent", "channel"] | None = None,
        every: Literal["day", "hour"] | None = None,
    ) -> Usage:
        """Return what the tenant used in a period of UTC: `2026-11`, `2026-11-28` or `2026-11-28T10`; default: this month.

        `metric` selects one metric. `by` divides each metric by agent (or `usr:` and a person's sub) or channel, for a day or a
        month. `every` lists each day or hour in the period instead.
        """
        query = {**given(period=period, metric=metric, by=by, every=every), "limit": PAGE}
        page = await self._http.read(UsagePage, self._path("usage"), query)
        items, as_of = [*page.items], page.as_of  # Later pages have everything before the `as_of` of the first one too.
        while page.next_cursor is not None:
            page = await self._http.read(UsagePage, self._path("usage"), {**query, "cursor": page.next_cursor})
            items += page.items
        return Usage(tuple(items), as_of)

    async def recount(self, *, period: str | None = None) -> Recounted:
        """Count the messages in the tenant's log again, and compare them with its usage; default: this month.

        A million messages take about a minute.
        """
        return await self._http.read(Recounted, self._path("usage", "recount"), given(period=period))
