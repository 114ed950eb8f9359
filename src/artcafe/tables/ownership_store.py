"""Count the tenants that one person owns, and those they created today, for the limits per person.

The number created in a day is a row in the challenges table, where every engine removes expired rows by `ttl`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from artcafe.model import Role, UserId
from artcafe.rules import ids
from artcafe.tables import people_rows
from artcafe.tables.attributes import number
from artcafe.tables.catalog import CHALLENGES, USER_TENANTS
from artcafe.tables.engine.conditions import Absent, Less, Or
from artcafe.tables.engine.port import Tables
from artcafe.tables.engine.writes import Add, Assign, Change, ItemKey, Update
from artcafe.tables.partition import ALL_AT_ONCE

_KEPT: Final = timedelta(days=2)
"""The row must outlive the day it counts."""


class OwnershipStore:
    """The tenants of one person. Builders return writes for the transaction that creates a tenant."""

    def __init__(self, tables: Tables, user_id: UserId) -> None:
        self._tables, self._user_id = tables, user_id

    async def owned(self, limit: int) -> int:
        """Return the number of tenants the person owns, counting at most one page beyond `limit`."""
        owned, after = 0, None
        while True:
            page = await self._tables.query(USER_TENANTS, self._user_id, after=after, limit=ALL_AT_ONCE, consistent=True)
            members = (people_rows.member_of(item) for item in page.items)
            owned += sum(member is not None and member.role is Role.OWNER for member in members)
            after = page.next
            if after is None or owned >= limit:
                return owned

    async def created_on(self, now: datetime) -> int:
        """Return the number of tenants the person has created on this day (UTC)."""
        (item,) = await self._tables.get(CHALLENGES, [self._day(now)], consistent=True)
        return 0 if item is None else number(item, "made")

    def count_created(self, now: datetime, limit: int) -> Update:
        """Count one more tenant created on this day (UTC); fails if `limit` were created.

        Safe to retry only in a transaction with a write made impossible by the first attempt.
        """
        changes: list[Change] = [Add("made", 1), Assign("ttl", int((now + _KEPT).timestamp()))]
        return Update(CHALLENGES, self._day(now), changes, Or(Absent("made"), Less("made", limit)))

    def _day(self, now: datetime) -> ItemKey:
        return ItemKey(f"tenants#{ids.digest(self._user_id, now.astimezone(UTC).date().isoformat())}")
