"""Tombstones of deleted records created by a request with an `Idempotency-Key`, so that a retry does not create them again.

They are rows of the challenges table: every engine removes expired ones by `ttl`, and the readers of challenges find no valid
challenge in them.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from artcafe.model import TenantId
from artcafe.rules import ids
from artcafe.tables.catalog import CHALLENGES
from artcafe.tables.engine.conditions import Absent, Less, Or
from artcafe.tables.engine.port import Tables
from artcafe.tables.engine.values import Item
from artcafe.tables.engine.writes import Check, ItemKey, Put

KEPT: Final = timedelta(hours=72)
"""As long as an invitation is open, and longer than any library or queue retries a request."""


class Tombstones:
    """The tombstones of one tenant. Builders return writes for the transaction that deletes or creates a record."""

    def __init__(self, tables: Tables, tenant_id: TenantId) -> None:
        self._tables, self._tenant_id = tables, tenant_id

    def put(self, id: str, now: datetime) -> Put:
        """Return the write that marks `id`, derived from a request, as deleted for the next 72 hours. May be repeated."""
        item: Item = {"challenge_id": self._key(id).partition, "tenant_id": self._tenant_id, "ttl": int((now + KEPT).timestamp())}
        return Put(CHALLENGES, item)

    def check_absent(self, id: str, now: datetime) -> Check:
        """Return a check that fails if `id` was deleted within the last 72 hours."""
        return Check(CHALLENGES, self._key(id), Or(Absent("challenge_id"), Less("ttl", int(now.timestamp()))))

    async def is_there(self, id: str, now: datetime) -> bool:
        """Return whether `id` was deleted within the last 72 hours."""
        (item,) = await self._tables.get(CHALLENGES, [self._key(id)], consistent=True)
        ttl = None if item is None else item.get("ttl")
        return isinstance(ttl, int) and ttl >= int(now.timestamp())

    def _key(self, id: str) -> ItemKey:
        return ItemKey(f"tombstone#{ids.digest(self._tenant_id, id)}")
