"""Reading a tenant's usage over all pages."""

from __future__ import annotations

from collections.abc import Mapping

from artcafe.sdk.http import PAGE, HttpClient, path_of
from artcafe.sdk.usage_records import Usage, UsageItem, UsagePage


async def read_usage(http: HttpClient, tenant: str, query: Mapping[str, str]) -> Usage:
    """Return what a tenant used, with the `as_of` of the first page: later pages have everything before it too."""
    items: list[UsageItem] = []
    page = await http.read(UsagePage, path_of(tenant, "usage"), {**query, "limit": PAGE})
    as_of = page.as_of
    items += page.items
    while page.next_cursor is not None:
        page = await http.read(UsagePage, path_of(tenant, "usage"), {**query, "limit": PAGE, "cursor": page.next_cursor})
        items += page.items
    return Usage(tuple(items), as_of)
