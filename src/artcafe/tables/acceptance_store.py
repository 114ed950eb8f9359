"""Accepted versions of the terms, by person. An acceptance is never changed or removed.

An acceptance revoked by the older system does not count. A new acceptance of the same version keeps the revoked one inside its
row.
"""

from __future__ import annotations

from typing import Final

from artcafe.model import Acceptance, UserId
from artcafe.rules.pages import Page, PageRequest
from artcafe.tables import attributes
from artcafe.tables.catalog import TERMS_ACCEPTANCE
from artcafe.tables.engine.conditions import Absent, Equals
from artcafe.tables.engine.port import ConditionFailed, Tables
from artcafe.tables.engine.values import Item
from artcafe.tables.engine.writes import ItemKey, Put
from artcafe.tables.partition import Partition

REVOKED: Final = "revoked_before"
"""The attribute of an acceptance holding the row of an earlier, revoked one."""


class AcceptanceStore:
    """The acceptances of one person."""

    def __init__(self, tables: Tables, user_id: UserId) -> None:
        self._tables, self._user_id = tables, user_id
        self._all = Partition(tables, TERMS_ACCEPTANCE, user_id)

    async def get(self, version: str) -> Acceptance | None:
        """Return the acceptance of a version, or None."""
        (item,) = await self._tables.get(TERMS_ACCEPTANCE, [ItemKey(self._user_id, version)], consistent=True)
        return None if item is None else _acceptance_of(item)

    async def has_any(self) -> bool:
        """Return whether the person has accepted any version without revoking it."""
        page = await self._all.page(PageRequest(limit=1), _acceptance_of)
        return bool(page.items)

    async def list(self, page_request: PageRequest) -> Page[Acceptance]:
        """Return a page of acceptances, ordered by the text of their versions."""
        return await self._all.page(page_request, _acceptance_of)

    async def insert(self, acceptance: Acceptance) -> bool:
        """Store an acceptance. Return False, and keep the existing one, if this version was accepted before."""
        item: Item = {
            "user_id": acceptance.user_id,
            "version": acceptance.version,
            **attributes.time_attribute("accepted_at", acceptance.accepted_at),
            "ip_address": acceptance.ip_address,
        }
        try:
            await self._tables.put(Put(TERMS_ACCEPTANCE, item, Absent("user_id")))
        except ConditionFailed as failed:
            if failed.item is None or not _is_revoked(failed.item):
                return False
            return await self._replace(failed.item, item)
        return True

    async def _replace(self, revoked: Item, item: Item) -> bool:
        """Write an acceptance over a revoked one; return False if a concurrent request was faster."""
        try:
            await self._tables.put(Put(TERMS_ACCEPTANCE, {**item, REVOKED: revoked}, Equals("revoked", revoked["revoked"])))
        except ConditionFailed:
            return False
        return True


def _is_revoked(item: Item) -> bool:
    """Return whether an older system revoked the acceptance: any value of `revoked` except null, false and 0."""
    return item.get("revoked") not in (None, False, 0)


def _acceptance_of(item: Item) -> Acceptance | None:
    if _is_revoked(item):
        return None
    return Acceptance(
        user_id=UserId(attributes.text(item, "user_id")),
        version=attributes.text(item, "version"),
        accepted_at=attributes.time(item, "accepted_at"),
        ip_address=attributes.text(item, "ip_address"),
    )
