"""The records of one tenant: reads, and builders of the writes a service combines into one transaction.

The services define the meaning of a write and the error for a failed condition. `rows` and `agent_rows` convert records to items.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final

from artcafe.model import (
    Agent,
    AgentId,
    Channel,
    ChannelId,
    Cursor,
    HandleKind,
    Tenant,
    TenantId,
    TenantStatus,
    UserId,
)
from artcafe.rules import handles, ids, inboxes, times
from artcafe.rules.pages import Page, PageRequest
from artcafe.tables import agent_rows, attributes, full_rows, rows
from artcafe.tables.catalog import (
    AGENTS,
    CHANNEL_SUBSCRIPTIONS,
    CHANNELS,
    TENANTS,
    Table,
)
from artcafe.tables.engine.conditions import Absent, And, Condition, Equals, Exists, Less, Not, NotEquals, OfKind, Or
from artcafe.tables.engine.port import ConditionFailed, Tables
from artcafe.tables.engine.values import Item, ValueKind
from artcafe.tables.engine.writes import Add, Assign, Change, Check, Delete, ItemKey, Put, Remove, Update, Write, key_of
from artcafe.tables.handle_claims import HandleClaims
from artcafe.tables.partition import Partition
from artcafe.tables.people_store import PeopleStore
from artcafe.tables.subscription_store import SubscriptionStore
from artcafe.tables.tombstones import Tombstones
from artcafe.tables.usage_store import UsageStore

_IS_ACTIVE: Final = NotEquals("status", TenantStatus.SUSPENDED.value)
"""Matches the active tenants of `rows.tenant_of`."""


class RecordCount(StrEnum):
    """A limited count, by its attribute in the tenant's row."""

    AGENTS = "agent_count"
    CHANNELS = "channel_count"
    MEMBERS = "member_count"


class TenantStore:
    """The records of one tenant; its key is in every read and write. Builders return writes; only `transact` changes anything."""

    __slots__ = ("_agents", "_channels", "_tables", "handles", "id", "subscriptions", "tombstones")

    def __init__(self, tables: Tables, tenant_id: TenantId) -> None:
        self._tables = tables
        self.id = tenant_id
        self.subscriptions = SubscriptionStore(tables, tenant_id)
        self.tombstones = Tombstones(tables, tenant_id)
        self.handles = HandleClaims(tables, tenant_id)
        self._agents = Partition(tables, AGENTS, tenant_id, apart=agent_rows.CLAIM_PREFIX)
        self._channels = Partition(tables, CHANNELS, tenant_id)

    async def transact(self, writes: Sequence[Write]) -> None:
        """Apply all writes or none. Raises ConditionFailed, and RowFull if a row is full."""
        with full_rows.reported():
            await self._tables.transact(writes)

    # --- the tenant's row ---

    async def tenant(self) -> Tenant | None:
        """Return the tenant, also during its deletion; None afterwards."""
        (item,) = await self._tables.get(TENANTS, [ItemKey(self.id)], consistent=True)
        return None if item is None or rows.TOMBSTONE in item else rows.tenant_of(item)

    async def item(self) -> Item | None:
        """Return the tenant's row as it is, for a change that depends on its format."""
        (item,) = await self._tables.get(TENANTS, [ItemKey(self.id)], consistent=True)
        return item

    async def is_deleted(self) -> bool:
        """Return whether the tenant existed and was deleted."""
        (item,) = await self._tables.get(TENANTS, [ItemKey(self.id)], consistent=True)
        return item is not None and rows.TOMBSTONE in item

    def touch(self, *changes: Change) -> Update:
        """Return the update of the tenant's row required in every transaction that changes permissions.

        Fails unless the tenant exists, is neither suspended nor being deleted, and has its counts (`is_counted`).
        """
        return self._touched(changes, [])

    def count(self, count: RecordCount, by: int, limit: int | None = None) -> Update:
        """Return `touch` with a count changed by `by`; also fails if the count has reached `limit`.

        Safe to retry only in a transaction with a write made impossible by the first attempt.
        """
        return self._touched([Add(count.value, by)], [] if limit is None else [Less(count.value, limit)])

    def begin_deletion(self) -> Update:
        """Return the write that starts the tenant's deletion: from then on nothing can be added to it. May be repeated."""
        return Update(TENANTS, ItemKey(self.id), [Assign(rows.DELETING, True), Add("version", 1)], Exists("id"))

    def set_status(self, status: TenantStatus, now: datetime) -> Update:
        """Return the write that suspends or resumes the tenant; fails unless it exists and is not being deleted.

        May be repeated.
        """
        changes: list[Change] = [Assign("status", status.value), Assign("updated_at", times.to_text(now)), Add("version", 1)]
        is_suspended = status is TenantStatus.SUSPENDED
        changes.append(Assign(rows.SUSPENDED_AT, times.to_text(now)) if is_suspended else Remove(rows.SUSPENDED_AT))
        return Update(TENANTS, ItemKey(self.id), changes, rows.IS_PRESENT)

    def change_row(self, changes: Sequence[Change], item: Item, now: datetime) -> Update:
        """Return the write of an operator's changes of the tenant's row; unlike `touch`, it changes a suspended tenant too.

        Fails unless the tenant exists, is not being deleted, and still has or lacks a map of limits as in `item`.
        """
        every: list[Change] = [*changes, Assign("updated_at", times.to_text(now)), Add("version", 1)]
        is_map = OfKind("limits", ValueKind.MAP)
        same = is_map if isinstance(item.get("limits"), Mapping) else Not(is_map)
        return Update(TENANTS, ItemKey(self.id), every, And(rows.IS_PRESENT, same))

    def write_tombstone(self, row: Tenant, by: UserId, now: datetime) -> Put:
        """Return the write that replaces a tenant's row by a tombstone: its identity, and the time and author of the deletion.

        The id is never reused, and nobody is a member (decision record 15). May be repeated.
        """
        return Put(TENANTS, rows.tombstone_item(row, by, now), Exists("id"))

    def _touched(self, changes: Sequence[Change], more: Sequence[Condition]) -> Update:
        counted = (OfKind(count.value, ValueKind.NUMBER) for count in RecordCount)
        there = And(rows.IS_PRESENT, _IS_ACTIVE, *counted, *more)
        return Update(TENANTS, ItemKey(self.id), [*changes, Add("version", 1)], there)

    @staticmethod
    def is_gone(row: Item | None) -> bool:
        """Return whether a tenant's row is missing or being deleted."""
        return row is None or rows.is_deleting(row)

    @staticmethod
    def is_suspended(row: Item) -> bool:
        """Return whether a tenant's row is suspended."""
        return rows.tenant_of(row).status is TenantStatus.SUSPENDED

    @staticmethod
    def is_counted(row: Item) -> bool:
        """Return whether a tenant's row has numeric counts and version; a row of an older system may have other values."""
        return all(attributes.is_number(row.get(name)) for name in RecordCount) and attributes.is_number(row.get("version", 0))

    @staticmethod
    def count_in(row: Item | None, count: RecordCount) -> int | None:
        """Return a count in a tenant's row, or None if the row has none."""
        number = None if row is None else row.get(count.value)
        return int(number) if isinstance(number, int | Decimal) and attributes.is_number(number) else None

    async def set_counts(self, counted: Mapping[RecordCount, int]) -> None:
        """Set all counts in a row lacking one, and a version if it has none; existing values are kept.

        ArtCafe counts nothing before all counts exist (`touch`), so a row with only some of them got those from elsewhere.
        """
        numbers = [Not(OfKind(count.value, ValueKind.NUMBER)) for count in RecordCount]
        counts = [Assign(count.value, counted[count]) for count in RecordCount]
        for changes, missing in ((counts, Or(*numbers)), ([Assign("version", 0)], Not(OfKind("version", ValueKind.NUMBER)))):
            with suppress(ConditionFailed), full_rows.reported():
                await self._tables.update(Update(TENANTS, ItemKey(self.id), changes, And(Exists("id"), missing)))

    async def member_count(self) -> int:
        """Return the number of members, counted one by one."""
        return len(await PeopleStore(self._tables, self.id).all_members())

    # --- agents ---

    async def agent(self, agent_id: str, *, also_deleting: bool = False) -> Agent | None:
        """Return the agent; None for an unknown, malformed or foreign id, and for an agent being deleted."""
        item = await self._item(AGENTS, agent_id, also_deleting)
        return None if item is None else agent_rows.agent_of(item)

    async def agent_id(self, text: str) -> str:
        """Return the id of the agent with this id or handle, also of one being deleted; the text itself if there is none."""
        if not handles.is_handle(text) or await self.agent(text, also_deleting=True) is not None:
            return text
        owner = await self.handles.owner(HandleKind.AGENT, text)
        agent = None if owner is None else await self.agent(owner, also_deleting=True)
        return agent.id if agent is not None and agent.handle == text else text

    async def agents(self, page_request: PageRequest, keep: Callable[[Agent], bool] = lambda _: True) -> Page[Agent]:
        """Return a page of agents, ordered by id."""
        return await self._agents.page(page_request, agent_rows.agent_of, keep)

    async def all_agents(self) -> list[Agent]:
        """Return every agent, including those being deleted."""
        return [agent async for item in self._agents.items() if (agent := agent_rows.agent_of(item)) is not None]

    def insert_agent(self, agent: Agent) -> Put:
        """Return the write of a new agent; fails if its id is taken."""
        return Put(AGENTS, agent_rows.agent_item(agent), Absent("id"))

    def change_agent(self, agent: Agent, changes: Sequence[Change]) -> Update:
        """Return the write of changes; fails unless the agent exists, with its epoch and keys unchanged since the read, and with
        its handle if that changes."""
        same = And(
            _same_handle(agent, changes),
            _unchanged("epoch", agent.epoch),
            _unchanged(agent_rows.KEYS_VERSION, agent.keys_version),
        )
        return Update(AGENTS, ItemKey(self.id, agent.id), changes, same)

    def begin_agent_deletion(self, agent_id: AgentId) -> Update:
        """Return the write that starts the agent's deletion. May be repeated."""
        return Update(AGENTS, ItemKey(self.id, agent_id), [Assign(rows.DELETING, True)], Exists("id"))

    def delete_agent(self, agent_id: AgentId) -> Delete:
        """Return the write that deletes the agent; fails if it does not exist, so that its count decreases once."""
        return Delete(AGENTS, ItemKey(self.id, agent_id), Exists("id"))

    async def handles_of(self, kind: HandleKind, records: Sequence[str]) -> dict[str, str]:
        """Return the handles of agents or channels by id, by one read for all; without those that have none or do not exist."""
        table = AGENTS if kind is HandleKind.AGENT else CHANNELS
        items = await self._tables.get(table, [ItemKey(self.id, id) for id in records if ids.is_possible(id)], consistent=True)
        there = [item for item in items if item is not None and not agent_rows.is_claim(item)]
        return {str(item["id"]): handle for item in there if isinstance(handle := item.get("handle"), str)}

    # --- key claims ---

    async def key_owner(self, fingerprint: str) -> AgentId | None:
        """Return the agent with a claim on the key, or None."""
        (item,) = await self._tables.get(AGENTS, [self._claim(fingerprint)], consistent=True)
        owner = None if item is None else item.get("agent_id")
        return AgentId(owner) if isinstance(owner, str) else None

    def claim_key(self, fingerprint: str, agent_id: AgentId, instead_of: AgentId | None = None) -> Put:
        """Return the write that claims the key for the agent; fails if another agent has claimed it, except `instead_of`."""
        owners = [Equals("agent_id", owner) for owner in (agent_id, instead_of) if owner is not None]
        key = self._claim(fingerprint)
        return Put(AGENTS, {"tenant_id": key.partition, "id": key.sort, "agent_id": agent_id}, Or(Absent("id"), *owners))

    def release_key(self, fingerprint: str, agent_id: AgentId) -> Delete:
        """Return the write that releases the key; fails if another agent has claimed it."""
        return Delete(AGENTS, self._claim(fingerprint), Or(Absent("id"), Equals("agent_id", agent_id)))

    def _claim(self, fingerprint: str) -> ItemKey:
        return ItemKey(self.id, agent_rows.CLAIM_PREFIX + fingerprint)

    # --- channels ---

    async def channel(self, channel_id: str, *, also_deleting: bool = False) -> Channel | None:
        """Return the channel; None for an unknown, malformed or foreign id, and for a channel being deleted."""
        item = await self._item(CHANNELS, channel_id, also_deleting)
        return None if item is None else rows.known_channel_of(item)

    async def channel_id(self, text: str) -> str:
        """Return the id of the channel with this id or handle, also of one being deleted; the text itself if there is none."""
        if not handles.is_handle(text) or await self.channel(text, also_deleting=True) is not None:
            return text
        owner = await self.handles.owner(HandleKind.CHANNEL, text)
        channel = None if owner is None else await self.channel(owner, also_deleting=True)
        return channel.id if channel is not None and channel.handle == text else text

    async def channels(self, page_request: PageRequest, keep: Callable[[Channel], bool] = lambda _: True) -> Page[Channel]:
        """Return a page of the channels accepted by `keep`, ordered by id."""
        return await self._channels.page(page_request, rows.known_channel_of, keep)

    async def all_channels(self) -> list[Channel]:
        """Return every channel of a known type, including those being deleted."""
        found = [rows.known_channel_of(item) async for item in self._channels.items()]
        return [channel for channel in found if channel is not None]

    def insert_channel(self, channel: Channel) -> Put:
        """Return the write of a new channel; fails if its id is taken."""
        return Put(CHANNELS, rows.channel_item(channel), Absent("id"))

    def change_channel(self, channel: Channel, changes: Sequence[Change]) -> Update:
        """Return the write of changes; fails unless the channel exists, with its handle as read if that changes."""
        return Update(CHANNELS, ItemKey(self.id, channel.id), changes, _same_handle(channel, changes))

    def check_channel(self, channel_id: ChannelId) -> Check:
        """Return a check that fails unless the channel exists."""
        return Check(CHANNELS, ItemKey(self.id, channel_id), rows.IS_PRESENT)

    async def removed_to(self, channel_id: ChannelId) -> Cursor:
        """Return the newest removed message of the channel.

        The empty cursor if nothing was removed or the channel does not exist.
        """
        return (await self.removal(channel_id))[0]

    async def removed_to_each(self, channel_ids: Sequence[ChannelId]) -> list[Cursor]:
        """Return the newest removed message of each channel, as `removed_to` does."""
        attributes = [self._removed(channel_id) for channel_id in channel_ids]
        found: dict[tuple[Table, ItemKey], Item | None] = {}
        for table in {table for table, _, _ in attributes}:
            keys = [key for of, key, _ in attributes if of is table]
            items = await self._tables.get(table, keys, consistent=True)
            found |= {(table, key): item for key, item in zip(keys, items, strict=True)}
        return [
            Cursor() if (item := found[table, key]) is None else rows.removed_to_of(item, name) for table, key, name in attributes
        ]

    async def removal(self, channel_id: ChannelId) -> tuple[Cursor, datetime | None]:
        """Return `removed_to`, and the time before which the removed messages were stored, if recorded."""
        table, key, name = self._removed(channel_id)
        (item,) = await self._tables.get(table, [key], consistent=True)
        return (Cursor(), None) if item is None else (rows.removed_to_of(item, name), rows.removed_before_of(item, name))

    async def note_removed(self, channel_id: ChannelId, to: Cursor, before: datetime | None = None) -> bool:
        """Record the removal of the channel's messages up to `to`, all stored before a time.

        Repeatable; never moves backwards in an epoch.

        Return whether the row now has this or a later position in the same epoch; False if the channel does not exist.
        """
        table, key, name = self._removed(channel_id)
        seq, epoch = (name, "seq"), (name, "epoch")
        ahead = Or(NotEquals(epoch, to.epoch), Absent(seq), Less(seq, to.seq))
        change = Assign(name, rows.removed_to_value(to, before))
        try:
            await self._tables.update(Update(table, key, [change], And(rows.IS_PRESENT, ahead)))
        except ConditionFailed as failed:
            return failed.item is not None and not rows.is_deleting(failed.item)
        return True

    def _removed(self, channel_id: ChannelId) -> tuple[Table, ItemKey, str]:
        """Return the table, the row and the attribute with a channel's newest removed message. An inbox has its agent's row."""
        owner = inboxes.owner_of(channel_id)
        if owner is None:
            return CHANNELS, ItemKey(self.id, channel_id), rows.REMOVED_TO
        return AGENTS, ItemKey(self.id, owner), agent_rows.INBOX_REMOVED_TO

    def begin_channel_deletion(self, channel_id: ChannelId) -> Update:
        """Return the write that starts the channel's deletion. May be repeated."""
        return Update(CHANNELS, ItemKey(self.id, channel_id), [Assign(rows.DELETING, True)], Exists("id"))

    def delete_channel(self, channel_id: ChannelId) -> Delete:
        """Return the write that deletes the channel; fails if it does not exist, so that its count decreases once."""
        return Delete(CHANNELS, ItemKey(self.id, channel_id), Exists("id"))

    # --- everything ---

    async def remove_all(self) -> None:
        """Delete every subscription, channel, agent, key claim and usage row. May be repeated."""
        everything = ((CHANNEL_SUBSCRIPTIONS, self.subscriptions.partition), (CHANNELS, self._channels), (AGENTS, self._agents))
        for table, partition in everything:
            async for items in partition.queries():
                await self._tables.transact([Delete(table, key_of(table, item)) for item in items])
        await UsageStore(self._tables, self.id).remove_all()

    # --- reading ---

    async def _item(self, table: Table, id: str, also_deleting: bool) -> Item | None:
        if not ids.is_possible(id):
            return None
        (item,) = await self._tables.get(table, [ItemKey(self.id, id)], consistent=True)
        return None if item is None or (rows.is_deleting(item) and not also_deleting) else item


def _same_handle(record: Agent | Channel, changes: Sequence[Change]) -> Condition:
    """Return a condition: the row exists, with the handle that was read if the changes give it another one.

    Of two changes at once, the second one would not release the handle of the first one.
    """
    if not any(change.path == "handle" for change in changes):
        return rows.IS_PRESENT
    return And(rows.IS_PRESENT, Absent("handle") if record.handle is None else Equals("handle", record.handle))


def _unchanged(name: str, number: int) -> Condition:
    """Return a condition: the attribute is still the number read, where a missing or malformed one was read as 0."""
    equal = Equals(name, number)
    return equal if number else Or(Not(OfKind(name, ValueKind.NUMBER)), equal)
