"""Claims of handles: a row for each handle, so no two agents and no two channels of a tenant have the same one.

They are rows of the agents' table, beside the claims of keys, for both kinds: one read finds the claims of a handle.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from artcafe.model import HandleKind, TenantId
from artcafe.tables.agent_rows import HANDLE_PREFIX
from artcafe.tables.attributes import text
from artcafe.tables.catalog import AGENTS, CHANNELS
from artcafe.tables.engine.conditions import Absent, Equals, Or
from artcafe.tables.engine.port import Tables
from artcafe.tables.engine.values import Item
from artcafe.tables.engine.writes import Delete, ItemKey, Put

OWNER: Final = {HandleKind.AGENT: "agent_id", HandleKind.CHANNEL: "channel_id"}
"""The attribute of a claim with the id of its agent or channel."""


class HandleClaims:
    """The claims of one tenant. Builders return writes for the transaction that writes the agent or channel."""

    __slots__ = ("_tables", "_tenant_id")

    def __init__(self, tables: Tables, tenant_id: TenantId) -> None:
        self._tables, self._tenant_id = tables, tenant_id

    async def owner(self, kind: HandleKind, handle: str) -> str | None:
        """Return the id of the agent or channel that claimed the handle; None if it is not claimed.

        The caller reads the row, and checks that it has the handle: a damaged table may have a claim without it.
        """
        (item,) = await self._tables.get(AGENTS, [claim_key(self._tenant_id, kind, handle)], consistent=True)
        return None if item is None else text(item, OWNER[kind]) or None

    async def taken(self, kind: HandleKind, handles: Iterable[str], unless: str) -> set[str]:
        """Return the handles that are claimed, or are the id of an agent or channel other than `unless`; at most 50 at once.

        Only ids of an older system can be like handles. Such an id wins over a handle, and would make it useless.
        """
        asked = list(handles)
        claims = [claim_key(self._tenant_id, kind, handle) for handle in asked]
        ids = [ItemKey(self._tenant_id, handle) for handle in asked]
        found = await self._tables.get(AGENTS, [*claims, *ids], consistent=True)
        claimed, agents = found[: len(asked)], found[len(asked) :]
        channels = await self._tables.get(CHANNELS, ids, consistent=True)
        rows = zip(asked, claimed, agents, channels, strict=True)
        return {
            handle
            for handle, claim, *others in rows
            if claim is not None or any(other is not None and text(other, "id") != unless for other in others)
        }

    def claim(self, kind: HandleKind, handle: str, owner: str, instead_of: str | None = None) -> Put:
        """Return the write that claims the handle; fails if another one has claimed it, except `instead_of`."""
        owners = [Equals(OWNER[kind], each) for each in (owner, instead_of) if each is not None]
        return Put(AGENTS, claim_item(self._tenant_id, kind, handle, owner), Or(Absent("id"), *owners))

    def release(self, kind: HandleKind, handle: str, owner: str) -> Delete:
        """Return the write that releases the handle; fails if another one has claimed it."""
        return Delete(AGENTS, claim_key(self._tenant_id, kind, handle), Or(Absent("id"), Equals(OWNER[kind], owner)))


def claim_key(tenant_id: str, kind: HandleKind, handle: str) -> ItemKey:
    """Return the key of a claim."""
    return ItemKey(tenant_id, f"{HANDLE_PREFIX}{kind.value}#{handle}")


def claim_item(tenant_id: str, kind: HandleKind, handle: str, owner: str) -> Item:
    """Return the item of a claim."""
    return {"tenant_id": tenant_id, "id": claim_key(tenant_id, kind, handle).sort, OWNER[kind]: owner}
