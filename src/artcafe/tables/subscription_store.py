"""A tenant's subscriptions: reads, cursor writes, and builders of the writes in a transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from artcafe.errors import BadCursor
from artcafe.model import (
    AgentId,
    ChannelId,
    Cursor,
    Permission,
    SkippedRange,
    Subscription,
    SubscriptionStatus,
    TenantId,
    subscription_id,
)
from artcafe.rules import ids, inboxes, times
from artcafe.rules.pages import Page, PageRequest
from artcafe.tables import agent_rows, full_rows, rows
from artcafe.tables.catalog import AGENTS, CHANNEL_SUBSCRIPTIONS
from artcafe.tables.engine.conditions import (
    Absent,
    And,
    Condition,
    Equals,
    Exists,
    FewerThan,
    Less,
    Not,
    NotEquals,
    OfKind,
    Or,
    Path,
)
from artcafe.tables.engine.port import ConditionFailed, Tables
from artcafe.tables.engine.values import Item, ValueKind
from artcafe.tables.engine.writes import Assign, Change, Delete, ItemKey, Put, Remove, Update
from artcafe.tables.partition import Partition


class SubscriptionStore:
    """The subscriptions of one tenant; its key is in every read and write. Builders return writes for `TenantStore.transact`."""

    __slots__ = ("_tables", "_tenant_id", "partition")

    def __init__(self, tables: Tables, tenant_id: TenantId) -> None:
        self._tables, self._tenant_id = tables, tenant_id
        self.partition = Partition(tables, CHANNEL_SUBSCRIPTIONS, tenant_id)

    async def get(self, channel_id: str, agent_id: str) -> Subscription | None:
        """Return the agent's subscription to the channel, or None."""
        (found,) = await self.get_many([(channel_id, agent_id)])
        return found

    async def get_many(self, pairs: Sequence[tuple[str, str]]) -> list[Subscription | None]:
        """Return the subscriptions of these (channel, agent) pairs, in their order, also those of agents to their inboxes."""
        own = {AgentId(agent_id) for channel_id, agent_id in pairs if inboxes.owner_of(channel_id) == agent_id}
        found = await self._inboxes(sorted(own)) if own else {}
        possible = [
            pair for pair in pairs if ids.is_possible(pair[0]) and ids.is_possible(pair[1]) and inboxes.owner_of(pair[0]) is None
        ]
        keys = [
            ItemKey(self._tenant_id, subscription_id(ChannelId(channel_id), AgentId(agent_id)))
            for channel_id, agent_id in possible
        ]
        items = await self._tables.get(CHANNEL_SUBSCRIPTIONS, keys, consistent=True) if keys else []
        read = (rows.subscription_of(item) for item in items if item is not None)
        # Two pairs of ids containing '#' could form the same row id, so compare the attributes.
        found |= {(each.channel_id, each.agent_id): each for each in read}
        return [found.get((ChannelId(channel_id), AgentId(agent_id))) for channel_id, agent_id in pairs]

    async def _inboxes(self, agents: Sequence[AgentId]) -> dict[tuple[ChannelId, AgentId], Subscription]:
        """Return the subscriptions of agents to their inboxes, which are in the agents' rows."""
        keys = [ItemKey(self._tenant_id, agent_id) for agent_id in agents if ids.is_possible(agent_id)]
        items = await self._tables.get(AGENTS, keys, consistent=True) if keys else []
        there = (agent_rows.agent_of(item) for item in items if item is not None and not rows.is_deleting(item))
        rows_of = (inboxes.subscription_of(agent) for agent in there if agent is not None)
        return {(row.channel_id, row.agent_id): row for row in rows_of}

    async def of_channel(self, channel_id: ChannelId, page_request: PageRequest) -> Page[Subscription]:
        """Return a page of the channel's subscriptions, ordered by agent id.

        Raises BadCursor for the sort key of another list.
        """
        prefix = subscription_id(channel_id, AgentId(""))
        if page_request.after is not None and not page_request.after.startswith(prefix):
            raise BadCursor
        return await self.partition.page(
            page_request, rows.subscription_of, lambda each: each.channel_id == channel_id, prefix=prefix
        )

    def insert(self, subscription: Subscription) -> Put:
        """Return the write of a new subscription; fails if it exists."""
        return Put(CHANNEL_SUBSCRIPTIONS, rows.subscription_item(subscription), Absent("id"))

    def set_status(self, channel_id: ChannelId, agent_id: AgentId, status: SubscriptionStatus, now: datetime) -> Update:
        """Return the write of a status; fails unless the subscription exists."""
        changes = [Assign("status", status.value), Assign("updated_at", times.to_text(now))]
        return Update(
            CHANNEL_SUBSCRIPTIONS, ItemKey(self._tenant_id, subscription_id(channel_id, agent_id)), changes, Exists("id")
        )

    def set_permissions(
        self, channel_id: ChannelId, agent_id: AgentId, permissions: frozenset[Permission], now: datetime
    ) -> Update:
        """Return the write of permissions; fails unless the subscription exists."""
        texts = sorted(permission.value for permission in permissions)
        changes = [Assign("permissions", texts), Assign("updated_at", times.to_text(now))]
        return Update(
            CHANNEL_SUBSCRIPTIONS, ItemKey(self._tenant_id, subscription_id(channel_id, agent_id)), changes, Exists("id")
        )

    def delete(self, channel_id: ChannelId, agent_id: AgentId, *, must_exist: bool = False) -> Delete:
        """Return the write that deletes a subscription; with `must_exist`, it fails if there is none."""
        key = ItemKey(self._tenant_id, subscription_id(channel_id, agent_id))
        return Delete(CHANNEL_SUBSCRIPTIONS, key, Exists("id") if must_exist else None)

    def enter_channel(self, agent_id: AgentId, channel_id: ChannelId, limit: int | None = None) -> Update:
        """Return the write that adds the channel to the agent's row.

        Fails unless the agent exists and has its map (`ensure_channel_map`), and with `limit` unless the map has fewer channels.
        """
        entry: Path = ("channels", channel_id)
        condition: Condition = rows.IS_PRESENT
        if limit is not None:
            condition = And(rows.IS_PRESENT, Or(FewerThan("channels", limit), Exists(entry)))
        return Update(AGENTS, ItemKey(self._tenant_id, agent_id), [Assign(entry, True)], condition)

    @staticmethod
    def count_in(agent: Item | None) -> int | None:
        """Return the number of channels in an agent's row; None without the row or its map, or while the agent is deleted."""
        channels = None if agent is None or rows.is_deleting(agent) else agent.get("channels")
        return len(channels) if isinstance(channels, Mapping) else None

    def leave_channel(self, agent_id: AgentId, channel_id: ChannelId) -> Update:
        """Return the write that removes the channel from the agent's row; fails unless the agent exists and has its map."""
        return Update(AGENTS, ItemKey(self._tenant_id, agent_id), [Remove(("channels", channel_id))], Exists("id"))

    async def ensure_channel_map(self, agent_id: AgentId) -> None:
        """Give an agent's row of an older system a map of channels, replacing any other value; an existing map is kept.

        Raises ConditionFailed if the agent does not exist.
        """
        missing = And(rows.IS_PRESENT, Not(OfKind("channels", ValueKind.MAP)))
        try:
            with full_rows.reported():
                await self._tables.update(Update(AGENTS, ItemKey(self._tenant_id, agent_id), [Assign("channels", {})], missing))
        except ConditionFailed as failed:
            if failed.item is None or rows.is_deleting(failed.item):
                raise

    async def write_cursor(
        self, channel_id: ChannelId, agent_id: AgentId, cursor: Cursor, acked_at: datetime | None = None
    ) -> bool:
        """Advance a subscription's cursor by an ack, or move it to another epoch; return whether it moved.

        Changes nothing if the subscription was deleted, its cursor is already as far, or a request moved it after the delivery
        of the acknowledged message began. Safe to retry.
        """
        if cursor.epoch is None:
            return False
        if inboxes.owner_of(channel_id) is None:
            table, sort, epoch, seq = CHANNEL_SUBSCRIPTIONS, subscription_id(channel_id, agent_id), "epoch", "acked_seq"
        else:
            table, sort, epoch, seq = AGENTS, agent_id, agent_rows.INBOX_EPOCH, agent_rows.INBOX_SEQ
        ahead = Or(NotEquals(epoch, cursor.epoch), Absent(seq), Less(seq, cursor.seq))
        condition = And(Exists("id"), ahead)
        changes = [Assign(epoch, cursor.epoch), Assign(seq, cursor.seq)]
        if table is CHANNEL_SUBSCRIPTIONS:
            condition = And(condition, _moved_as_often(cursor))
            if acked_at is not None:
                changes.append(Assign("acked_at", times.to_text(acked_at)))
        try:
            await self._tables.update(Update(table, ItemKey(self._tenant_id, sort), changes, condition))
        except ConditionFailed:
            return False
        return True

    def move_cursor(self, before: Subscription, to: Cursor, start: Cursor, skipped: SkippedRange | None, now: datetime) -> Update:
        """Return the write that sets a subscription's cursor to any position, and makes the acks of earlier deliveries void.

        Fails unless the subscription exists and was not moved since `before` was read.
        """
        changes: list[Change] = [
            Remove("epoch") if to.epoch is None else Assign("epoch", to.epoch),
            Assign("acked_seq", to.seq),
            Assign("moves", before.cursor.moves + 1),
            Remove("start_epoch") if start.epoch is None else Assign("start_epoch", start.epoch),
            Assign("start_seq", start.seq),
            Remove(rows.SKIPPED) if skipped is None else Assign(rows.SKIPPED, rows.skipped_value(skipped)),
            Assign("updated_at", times.to_text(now)),
        ]
        key = ItemKey(self._tenant_id, before.id)
        return Update(CHANNEL_SUBSCRIPTIONS, key, changes, And(Exists("id"), _moved_as_often(before.cursor)))


def _moved_as_often(cursor: Cursor) -> Condition:
    """Match a row whose cursor was moved by as many requests as this one."""
    return Equals("moves", cursor.moves) if cursor.moves else Absent("moves")
