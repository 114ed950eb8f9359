"""Which versions of the terms each person has accepted, as records. Nothing here is ever changed or removed."""

from __future__ import annotations

from artcafe.model import Acceptance, UserId
from artcafe.rules.pages import Page, PageRequest
from artcafe.tables import attributes
from artcafe.tables.catalog import TERMS_ACCEPTANCE
from artcafe.tables.conditions import Absent
from artcafe.tables.partition import Partition
from artcafe.tables.port import ConditionFailed, Key, Put, Tables
from artcafe.tables.values import Item


class AcceptanceStore:
    """What one person has accepted."""

    def __init__(self, tables: Tables, user_id: UserId) -> None:
        self._tables, self._user_id = tables, user_id
        self._all = Partition(tables, TERMS_ACCEPTANCE, user_id)

    async def get(self, version: str) -> Acceptance | None:
        """The acceptance of a version."""
        (item,) = await self._tables.get(TERMS_ACCEPTANCE, [Key(self._user_id, version)], consistent=True)
        return None if item is None else _acceptance_of(item)

    async def has_any(self) -> bool:
        """Whether any version was ever accepted."""
        page = await self._tables.query(TERMS_ACCEPTANCE, self._user_id, limit=1, consistent=True)
        return bool(page.items)

    async def list(self, ask: PageRequest) -> Page[Acceptance]:
        """Acceptances in the order of their versions' text."""
        return await self._all.page(ask, _acceptance_of)

    async def insert(self, acceptance: Acceptance) -> bool:
        """Keeps an acceptance; False where that version was accepted before, which stays as it is."""
        item: Item = {
            "user_id": acceptance.user_id,
            "version": acceptance.version,
            **attributes.time_attribute("accepted_at", acceptance.accepted_at),
            "ip_address": acceptance.ip_address,
        }
        try:
            await self._tables.put(Put(TERMS_ACCEPTANCE, item, Absent("user_id")))
        except ConditionFailed:
            return False
        return True


def _acceptance_of(item: Item) -> Acceptance:
    return Acceptance(
        user_id=UserId(attributes.text(item, "user_id")),
        version=attributes.text(item, "version"),
        accepted_at=attributes.time(item, "accepted_at"),
        ip_address=attributes.text(item, "ip_address"),
    )
