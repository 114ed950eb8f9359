"""Mapping of a tenant's items for a copy: with the same ids, or with new ids everywhere. Pure.

New ids are derived from the old ones and a label, so that an interrupted copy continues with the same ids.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from artcafe.model import AgentId, ChannelId, Cursor, TenantId, subscription_id
from artcafe.rules import inboxes
from artcafe.rules.ids import derived_id
from artcafe.tables import agent_rows, people_rows, rows, usage_rows
from artcafe.tables.catalog import (
    AGENTS,
    CHANNEL_SUBSCRIPTIONS,
    CHANNELS,
    TENANTS,
    USAGE_METRICS,
    USER_TENANT_INDEX,
    USER_TENANTS,
    Table,
)
from artcafe.tables.engine.values import Item, Value

MapPosition = Callable[[Cursor], Cursor]
"""Map a position in the old log to one in the new log."""

IN_TENANT: Final = frozenset({AGENTS, CHANNELS, CHANNEL_SUBSCRIPTIONS, USER_TENANTS, USER_TENANT_INDEX})


class IdMapping(Protocol):
    """Maps tenant ids and items; an item mapped to None is not copied."""

    def tenant_id(self, tenant_id: TenantId) -> TenantId: ...

    def item(self, table: Table, item: Item) -> Item | None: ...


class SameIds:
    """Keeps every id."""

    def tenant_id(self, tenant_id: TenantId) -> TenantId:
        """Return the same id."""
        return tenant_id

    def item(self, _table: Table, item: Item) -> Item | None:
        """Return the same item."""
        return item


class NewIds:
    """Gives new ids to tenant, agents and channels; people keep theirs. Usage and invitations are not copied.

    The copy has a new log: its channels have no removed messages, and `map_position` maps each cursor to the same message. The
    copied messages are the original's usage, so the copy's meter begins at `end`.
    """

    def __init__(self, tenant_id: TenantId, label: str) -> None:
        self._tenant_id, self._label = tenant_id, label
        self.new_id = TenantId(self._derived("ten", tenant_id))
        self.map_position: MapPosition = lambda cursor: cursor
        self.end = Cursor()
        """The last copied message in the new log."""
        self.agents: dict[str, str] = {}
        self.channels: dict[str, str] = {}
        """The new id of each mapped id."""

    def tenant_id(self, _tenant_id: TenantId) -> TenantId:
        """Return the new tenant's id."""
        return self.new_id

    def agent(self, agent_id: str) -> AgentId:
        """Return an agent's id in the copy."""
        return AgentId(self.agents.setdefault(agent_id, self._derived("agt", agent_id)))

    def sender(self, sender: str) -> str:
        """Return a message's sender in the copy: an agent's new id, or the same person."""
        return sender if sender.startswith("usr:") else self.agent(sender)

    def channel(self, channel_id: str) -> ChannelId:
        """Return the id of a channel or an inbox in the copy."""
        owner = inboxes.owner_of(channel_id)
        if owner is not None:
            return inboxes.inbox_of(self.agent(owner))
        return ChannelId(self.channels.setdefault(channel_id, self._derived("chn", channel_id)))

    def item(self, table: Table, item: Item) -> Item | None:
        """Return the item of the copy; None for usage and invitations."""
        if table is USAGE_METRICS:
            return self._meter() if item.get("metric_id") == usage_rows.METER else None
        if str(item.get("user_id", "")).startswith(people_rows.INVITATION_PREFIX):
            return None
        if table is TENANTS:
            return {**item, "id": self.new_id}
        if table not in IN_TENANT:
            return item
        named = {**item, "tenant_id": self.new_id}
        if table is AGENTS:
            return self._agent(named)
        if table is CHANNELS:
            named.pop(rows.REMOVED_TO, None)
            for name in (rows.DEAD_LETTER, rows.DEAD_LETTER_OF):
                if isinstance(other := named.get(name), str):
                    named[name] = self.channel(other)
            return {**named, "id": self.channel(str(item["id"]))}
        return self._subscription(named) if table is CHANNEL_SUBSCRIPTIONS else named

    def _meter(self) -> Item:
        """Return the row of a meter that has counted every copied message."""
        counted = usage_rows.MeterState(cursor=self.end, begun=self.end.seq, attributed=self.end.seq)
        attributes = {name: value for name, value in usage_rows.meter_attributes(counted).items() if value is not None}
        return {"tenant_id": self.new_id, "metric_id": usage_rows.METER, **attributes}

    def _agent(self, item: dict[str, Value]) -> Item:
        id = str(item["id"])
        if id.startswith(agent_rows.CLAIM_PREFIX):
            return self._claim(item)
        channels = item.get("channels")
        if isinstance(channels, Mapping):
            item["channels"] = {self.channel(channel_id): value for channel_id, value in channels.items()}
        position = self.map_position(agent_rows.inbox_position(item) or Cursor())
        for name in (agent_rows.INBOX_REMOVED_TO, agent_rows.INBOX_EPOCH, agent_rows.INBOX_SEQ):
            item.pop(name, None)
        if position.epoch is not None:
            item |= {agent_rows.INBOX_EPOCH: position.epoch, agent_rows.INBOX_SEQ: position.seq}
        return {**item, "id": self.agent(id)}

    def _claim(self, item: dict[str, Value]) -> Item:
        if "channel_id" in item:
            return {**item, "channel_id": self.channel(str(item["channel_id"]))}
        return {**item, "agent_id": self.agent(str(item.get("agent_id", "")))}

    def _subscription(self, item: dict[str, Value]) -> Item:
        subscription = rows.subscription_of(item)
        channel_id, agent_id = self.channel(subscription.channel_id), self.agent(subscription.agent_id)
        start = Cursor(epoch=subscription.cursor.epoch, seq=_seq(item.get("start_seq")))
        position = self.map_position(subscription.cursor)
        item |= {"id": subscription_id(channel_id, agent_id), "channel_id": channel_id, "agent_id": agent_id}
        for name in ("start_epoch", rows.SKIPPED):  # They are of the copied log, for receipts of its messages.
            item.pop(name, None)
        if "acked_seq" in item or position.epoch is not None:
            item |= {"start_seq": self.map_position(start).seq, "acked_seq": position.seq}
        return item if position.epoch is None else {**item, "epoch": position.epoch}

    def _derived(self, prefix: str, id: str) -> str:
        return derived_id(prefix, "copy", self._label, self._tenant_id, id)


def _seq(value: Value) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
