"""What one tenant has, as records: what is read of it, and the writes a service puts together into one transaction.

What a write means, and what is told when its condition fails, is the services'. How a record is an item is `rows`' and
`agent_rows`'.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from enum import StrEnum
from typing import Final

from artcafe.model import (
    Agent,
    AgentId,
    Channel,
    ChannelId,
    Cursor,
    Tenant,
    TenantId,
    TenantStatus,
    UserId,
)
from artcafe.rules import ids, times
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
from artcafe.tables.engine.writes import Add, Assign, Change, Check, Delete, ItemKey, Put, Update, Write, key_of
from artcafe.tables.partition import Partition
from artcafe.tables.people_store import PeopleStore
from artcafe.tables.subscription_store import SubscriptionStore
from artcafe.tables.tombstones import Tombstones

_IS_ACTIVE: Final = NotEquals("status", TenantStatus.SUSPENDED.value)
"""As `rows.tenant_of` has it."""


class Count(StrEnum):
    """A count that stands under a limit, by its attribute in the tenant's row."""

    AGENTS = "agent_count"
    CHANNELS = "channel_count"
    MEMBERS = "member_count"


class TenantStore:
    """What one tenant has: every read and write carries its key. Builders return writes; nothing changes before `transact`."""

    def __init__(self, tables: Tables, tenant_id: TenantId) -> None:
        self._tables = tables
        self.id = tenant_id
        self.subscriptions = SubscriptionStore(tables, tenant_id)
        self.tombstones = Tombstones(tables, tenant_id)
        self._agents = Partition(tables, AGENTS, tenant_id, apart=agent_rows.CLAIM_PREFIX)
        self._channels = Partition(tables, CHANNELS, tenant_id)

    async def transact(self, writes: Sequence[Write]) -> None:
        """All of the writes or none. Raises ConditionFailed, and RowFull where a row has no room."""
        with full_rows.reported():
            await self._tables.transact(writes)

    # --- the tenant's row ---

    async def tenant(self) -> Tenant | None:
        """The tenant, also while it is being deleted; None once it is."""
        (item,) = await self._tables.get(TENANTS, [ItemKey(self.id)], consistent=True)
        return None if item is None or rows.TOMBSTONE in item else rows.tenant_of(item)

    async def is_deleted(self) -> bool:
        """Whether there was such a tenant, which was deleted."""
        (item,) = await self._tables.get(TENANTS, [ItemKey(self.id)], consistent=True)
        return item is not None and rows.TOMBSTONE in item

    def touch(self, *changes: Change) -> Update:
        """The one write of the tenant's row that stands in every transaction that alters who may do what.

        Fails unless the tenant is there, is neither suspended nor being deleted, and has its counts (`is_counted`).
        """
        return self._touched(changes, [])

    def count(self, count: Count, by: int, limit: int | None = None) -> Update:
        """As `touch`, with a count moved; fails also when the count has reached `limit`.

        Safe to repeat only beside a write that the first time makes impossible.
        """
        return self._touched([Add(count.value, by)], [] if limit is None else [Less(count.value, limit)])

    def begin_deletion(self) -> Update:
        """The tenant counts as being deleted from here on: nothing is added to it any more. May be repeated."""
        return Update(TENANTS, ItemKey(self.id), [Assign(rows.DELETING, True), Add("version", 1)], Exists("id"))

    def set_status(self, status: TenantStatus, now: datetime) -> Update:
        """Suspends or resumes the tenant. Fails unless it is there and not being deleted. May be repeated."""
        changes: list[Change] = [Assign("status", status.value), Assign("updated_at", times.to_text(now)), Add("version", 1)]
        return Update(TENANTS, ItemKey(self.id), changes, rows.IS_PRESENT)

    def write_tombstone(self, row: Tenant, by: UserId, now: datetime) -> Put:
        """What is left of a deleted tenant, in place of its row: who it was, when it was deleted and by whom. May be repeated.

        The id is never given again, and nobody is in it (decision 15).
        """
        return Put(TENANTS, rows.tombstone_item(row, by, now), Exists("id"))

    def _touched(self, changes: Sequence[Change], more: Sequence[Condition]) -> Update:
        counted = (OfKind(count.value, ValueKind.NUMBER) for count in Count)
        there = And(rows.IS_PRESENT, _IS_ACTIVE, *counted, *more)
        return Update(TENANTS, ItemKey(self.id), [*changes, Add("version", 1)], there)

    @staticmethod
    def is_gone(row: Item | None) -> bool:
        """Whether a tenant's row is that of no tenant, or of one that is being deleted."""
        return row is None or rows.is_deleting(row)

    @staticmethod
    def is_suspended(row: Item) -> bool:
        """Whether a tenant's row is that of one that is suspended."""
        return rows.tenant_of(row).status is TenantStatus.SUSPENDED

    @staticmethod
    def is_counted(row: Item) -> bool:
        """Whether a tenant's row has its counts, and a version that can rise; an older system's may have other things there."""
        return all(attributes.is_number(row.get(name)) for name in Count) and attributes.is_number(row.get("version", 0))

    async def set_counts(self, counted: Mapping[Count, int]) -> None:
        """Gives all counts to a row that lacks one, and a version where none stands; what is there stays.

        Nothing of ours is counted before all stand (`touch`), so a row with one of them has it from somewhere else.
        """
        numbers = [Not(OfKind(count.value, ValueKind.NUMBER)) for count in Count]
        counts = [Assign(count.value, counted[count]) for count in Count]
        for changes, missing in ((counts, Or(*numbers)), ([Assign("version", 0)], Not(OfKind("version", ValueKind.NUMBER)))):
            with suppress(ConditionFailed), full_rows.reported():
                await self._tables.update(Update(TENANTS, ItemKey(self.id), changes, And(Exists("id"), missing)))

    async def member_count(self) -> int:
        """How many are in the tenant, counted one by one."""
        return len(await PeopleStore(self._tables, self.id).all_members())

    # --- agents ---

    async def agent(self, agent_id: str, *, also_deleting: bool = False) -> Agent | None:
        """The agent; None for an id that is absent, malformed or another tenant's, or an agent that is being deleted."""
        item = await self._item(AGENTS, agent_id, also_deleting)
        return None if item is None else agent_rows.agent_of(item)

    async def agents(self, ask: PageRequest, keep: Callable[[Agent], bool] = lambda _: True) -> Page[Agent]:
        """Agents in the order of their ids."""
        return await self._agents.page(ask, agent_rows.agent_of, keep)

    async def all_agents(self) -> list[Agent]:
        """Every agent, also one that is being deleted."""
        return [agent async for item in self._agents.items() if (agent := agent_rows.agent_of(item)) is not None]

    def insert_agent(self, agent: Agent) -> Put:
        """A new agent; fails when its id is taken."""
        return Put(AGENTS, agent_rows.agent_item(agent), Absent("id"))

    def change_agent(self, agent: Agent, changes: Sequence[Change]) -> Update:
        """Fails unless the agent is there, with the epoch and the keys it had when it was read."""
        same = And(rows.IS_PRESENT, _unchanged("epoch", agent.epoch), _unchanged(agent_rows.KEYS_VERSION, agent.keys_version))
        return Update(AGENTS, ItemKey(self.id, agent.id), changes, same)

    def begin_agent_deletion(self, agent_id: AgentId) -> Update:
        """The agent counts as gone from here on. May be repeated."""
        return Update(AGENTS, ItemKey(self.id, agent_id), [Assign(rows.DELETING, True)], Exists("id"))

    def delete_agent(self, agent_id: AgentId) -> Delete:
        """Fails when the agent is not there, so that its count goes down once."""
        return Delete(AGENTS, ItemKey(self.id, agent_id), Exists("id"))

    # --- which agent has which key ---

    async def key_owner(self, fingerprint: str) -> AgentId | None:
        """The agent that has claimed the key."""
        (item,) = await self._tables.get(AGENTS, [self._claim(fingerprint)], consistent=True)
        owner = None if item is None else item.get("agent_id")
        return AgentId(owner) if isinstance(owner, str) else None

    def claim_key(self, fingerprint: str, agent_id: AgentId, instead_of: AgentId | None = None) -> Put:
        """The key is this agent's; fails when it is another's, unless that is `instead_of`."""
        owners = [Equals("agent_id", owner) for owner in (agent_id, instead_of) if owner is not None]
        key = self._claim(fingerprint)
        return Put(AGENTS, {"tenant_id": key.partition, "id": key.sort, "agent_id": agent_id}, Or(Absent("id"), *owners))

    def release_key(self, fingerprint: str, agent_id: AgentId) -> Delete:
        """The key is nobody's; fails when it is another agent's."""
        return Delete(AGENTS, self._claim(fingerprint), Or(Absent("id"), Equals("agent_id", agent_id)))

    def _claim(self, fingerprint: str) -> ItemKey:
        return ItemKey(self.id, agent_rows.CLAIM_PREFIX + fingerprint)

    # --- channels ---

    async def channel(self, channel_id: str, *, also_deleting: bool = False) -> Channel | None:
        """The channel; None for an id that is absent, malformed or another tenant's, or a channel that is being deleted."""
        item = await self._item(CHANNELS, channel_id, also_deleting)
        return None if item is None else rows.channel_of(item)

    async def channels(self, ask: PageRequest) -> Page[Channel]:
        """Channels in the order of their ids."""
        return await self._channels.page(ask, rows.channel_of)

    async def all_channels(self) -> list[Channel]:
        """Every channel, also one that is being deleted."""
        return [rows.channel_of(item) async for item in self._channels.items()]

    def insert_channel(self, channel: Channel) -> Put:
        """A new channel; fails when its id is taken."""
        return Put(CHANNELS, rows.channel_item(channel), Absent("id"))

    def change_channel(self, channel_id: ChannelId, changes: Sequence[Change]) -> Update:
        """Fails unless the channel is there."""
        return Update(CHANNELS, ItemKey(self.id, channel_id), changes, rows.IS_PRESENT)

    def check_channel(self, channel_id: ChannelId) -> Check:
        """Fails unless the channel is there."""
        return Check(CHANNELS, ItemKey(self.id, channel_id), rows.IS_PRESENT)

    async def removed_to(self, channel_id: ChannelId) -> Cursor:
        """How far the channel's messages are gone; the empty cursor where nothing is, or no such channel is there."""
        return (await self.removal(channel_id))[0]

    async def removal(self, channel_id: ChannelId) -> tuple[Cursor, datetime | None]:
        """As `removed_to`, and the time before which all of that was stored, where it was noted."""
        (item,) = await self._tables.get(CHANNELS, [ItemKey(self.id, channel_id)], consistent=True)
        return (Cursor(), None) if item is None else (rows.removed_to_of(item), rows.removed_before_of(item))

    async def note_removed(self, channel_id: ChannelId, to: Cursor, before: datetime | None = None) -> bool:
        """Notes that the channel's messages up to `to`, all stored before a time, go. Repeatable; never backwards in an epoch.

        Says whether the row now has this or a higher place in the same epoch; not so where the channel is gone.
        """
        seq, epoch = (rows.REMOVED_TO, "seq"), (rows.REMOVED_TO, "epoch")
        ahead = Or(NotEquals(epoch, to.epoch), Absent(seq), Less(seq, to.seq))
        change = Assign(rows.REMOVED_TO, rows.removed_to_value(to, before))
        try:
            await self._tables.update(Update(CHANNELS, ItemKey(self.id, channel_id), [change], And(rows.IS_PRESENT, ahead)))
        except ConditionFailed as failed:
            return failed.item is not None and not rows.is_deleting(failed.item)
        return True

    def begin_channel_deletion(self, channel_id: ChannelId) -> Update:
        """The channel counts as gone from here on. May be repeated."""
        return Update(CHANNELS, ItemKey(self.id, channel_id), [Assign(rows.DELETING, True)], Exists("id"))

    def delete_channel(self, channel_id: ChannelId) -> Delete:
        """Fails when the channel is not there, so that its count goes down once."""
        return Delete(CHANNELS, ItemKey(self.id, channel_id), Exists("id"))

    # --- everything ---

    async def remove_all(self) -> None:
        """Removes every subscription, channel, agent and claim. May be repeated."""
        everything = ((CHANNEL_SUBSCRIPTIONS, self.subscriptions.partition), (CHANNELS, self._channels), (AGENTS, self._agents))
        for table, partition in everything:
            async for items in partition.queries():
                await self._tables.transact([Delete(table, key_of(table, item)) for item in items])

    # --- reading ---

    async def _item(self, table: Table, id: str, also_deleting: bool) -> Item | None:
        if not ids.is_possible(id):
            return None
        (item,) = await self._tables.get(table, [ItemKey(self.id, id)], consistent=True)
        return None if item is None or (rows.is_deleting(item) and not also_deleting) else item


def _unchanged(name: str, number: int) -> Condition:
    """The attribute is the number that was read: none, or something else, reads as 0."""
    equal = Equals(name, number)
    return equal if number else Or(Not(OfKind(name, ValueKind.NUMBER)), equal)
