"""Missing and repeated handles of a tenant's agents and channels, their claims, and the writes to fix both. Pure.

Rows of an older system have no handles; every other defect needs damaged tables. A fix gives a row a handle made from its name,
as a new one gets it, and changes no valid one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from itertools import count
from typing import Final

from artcafe.maintenance.integrity import Defect, Finding, Fix, TenantRows
from artcafe.model import Agent, Channel, HandleKind
from artcafe.rules import handles
from artcafe.tables import agent_rows, rows
from artcafe.tables.attributes import text
from artcafe.tables.catalog import AGENTS, CHANNELS
from artcafe.tables.engine.conditions import Absent, And, Condition, Equals, Exists
from artcafe.tables.engine.values import Item
from artcafe.tables.engine.writes import Assign, Delete, ItemKey, Put, Update, Write
from artcafe.tables.handle_claims import OWNER, claim_item, claim_key

_TABLE: Final = {HandleKind.AGENT: AGENTS, HandleKind.CHANNEL: CHANNELS}


def examine_handles(had: TenantRows, written: Collection[ItemKey]) -> list[Fix]:
    """Return the defects of a tenant's handles. No two fixes write the same row.

    `written`: the rows of agents that other fixes write. A finding about them has no writes; a later pass fixes it.
    """
    if rows.is_deleting(had.tenant):
        return []
    agents = [item for item in had.agents if not agent_rows.is_claim(item)]
    ids = {str(item["id"]) for item in (*agents, *had.channels)}
    tenant_id = str(had.tenant["id"])
    found: list[Fix] = []
    for kind, items in ((HandleKind.AGENT, agents), (HandleKind.CHANNEL, had.channels)):
        prefix = claim_key(tenant_id, kind, "").sort or ""
        claims = {str(item["id"])[len(prefix) :]: item for item in had.agents if str(item["id"]).startswith(prefix)}
        found += _OneKind(tenant_id, kind, items, claims, ids).examine()
    return [Fix(fix.finding) if _keys(fix.writes) & set(written) else fix for fix in found]


class _OneKind:
    """The agents or the channels of a tenant, with the claims of their handles."""

    def __init__(
        self, tenant_id: str, kind: HandleKind, items: Sequence[Item], claims: dict[str, Item], ids: Collection[str]
    ) -> None:
        self._tenant_id, self._kind, self._claims, self._ids = tenant_id, kind, claims, ids
        self._records: dict[str, Agent | Channel] = {
            record.id: record for item in items if (record := _record(kind, item)) is not None
        }
        self._items = {str(item["id"]): item for item in items}
        self._used = {*claims, *(record.handle for record in self._records.values() if record.handle is not None)}
        self._numbers: defaultdict[str, Iterator[int]] = defaultdict(lambda: count(1))

    def examine(self) -> Iterator[Fix]:
        """Yield the fixes of missing and repeated handles, then those of claims."""
        kept = self._kept()
        named, claimed = set(kept.values()), self._claimed(kept)
        for id in sorted(self._records):
            if id not in named and not rows.is_deleting(self._items[id]):
                yield self._named(self._records[id], claimed.get(id))
        for handle in sorted({*kept, *self._claims}.difference(claimed.values())):
            owner, claim = kept.get(handle), self._claims.get(handle)
            if claim is None or owner is None or self._owner(handle) != owner:
                yield self._fixed_claim(handle, owner, claim)

    def _kept(self) -> dict[str, str]:
        """Return the owner of each valid handle: the one that has claimed it, or else the one with the lowest id."""
        kept: dict[str, str] = {}
        for id in sorted(self._records):
            handle = self._records[id].handle
            if handle is None or (handle in self._ids and handle != id):
                continue
            if handle not in kept or self._owner(handle) == id:
                kept[handle] = id
        return kept

    def _claimed(self, kept: Collection[str]) -> dict[str, str]:
        """Return a claimed handle of each record without a handle that has one, by id."""
        claimed: dict[str, str] = {}
        for handle in sorted(self._claims):
            owner = self._owner(handle)
            record = None if owner is None else self._records.get(owner)
            if record is not None and record.handle is None and handle not in kept and handles.is_handle(handle):
                claimed.setdefault(record.id, handle)
        return claimed

    def _owner(self, handle: str) -> str | None:
        claim = self._claims.get(handle)
        return None if claim is None else text(claim, OWNER[self._kind]) or None

    def _named(self, record: Agent | Channel, claimed: str | None) -> Fix:
        """Give a record the handle that it has `claimed`, or a free one with its claim."""
        item = self._items[record.id]
        if record.handle is None:
            message = "it has no valid handle, and is found by its id only"
        elif record.handle in self._ids and record.handle != record.id:
            message = f"its handle {record.handle!r} is the id of another row, which wins"
        else:
            message = f"its handle {record.handle!r} is that of another {self._kind.value}"
        handle = claimed or self._free(handles.from_name(record.name, self._kind.value), record.id)
        as_read: Condition = Equals("handle", item["handle"]) if "handle" in item else Absent("handle")
        update = Update(
            _TABLE[self._kind], ItemKey(self._tenant_id, record.id), [Assign("handle", handle)], And(Exists("id"), as_read)
        )
        put = Put(AGENTS, claim_item(self._tenant_id, self._kind, handle, record.id), Absent("id"))
        return Fix(self._finding(_TABLE[self._kind].name, record.id, message), (update,) if claimed else (update, put))

    def _free(self, base: str, id: str) -> str:
        """Return the first numbered handle that nothing has, and take it."""
        found = next(
            name
            for number in self._numbers[base]
            if (name := handles.numbered(base, number)) not in self._used and (name not in self._ids or name == id)
        )
        self._used.add(found)
        return found

    def _fixed_claim(self, handle: str, owner: str | None, claim: Item | None) -> Fix:
        """Give a claim to its owner, or delete it without one."""
        key = claim_key(self._tenant_id, self._kind, handle)
        attribute = OWNER[self._kind]
        as_read: Condition = Absent("id")
        if claim is not None:
            as_read = Equals(attribute, claim[attribute]) if attribute in claim else Absent(attribute)
        write: Write
        if owner is None:
            write, message = Delete(AGENTS, key, as_read), f"no {self._kind.value} has the claimed handle"
        else:
            write = Put(AGENTS, claim_item(self._tenant_id, self._kind, handle, owner), as_read)
            claimed = "not claimed" if claim is None else f"claimed by another {self._kind.value}"
            message = f"the handle of {owner} is {claimed}"
        return Fix(self._finding(AGENTS.name, str(key.sort), message), (write,))

    def _finding(self, table: str, key: str, message: str) -> Finding:
        return Finding(what=Defect.HANDLE, tenant_id=self._tenant_id, table=table, key=key, message=message, is_fixable=True)


def _record(kind: HandleKind, item: Item) -> Agent | Channel | None:
    return agent_rows.agent_of(item) if kind is HandleKind.AGENT else rows.channel_of(item)


def _keys(writes: Sequence[Write]) -> set[ItemKey]:
    return {write.key for write in writes if write.table is AGENTS}
