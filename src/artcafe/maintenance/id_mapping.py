"""A tenant's items as they are for another place: with their own ids, or with new ones throughout. Pure.

New ids are derived from the old ones and a label, so that a copy that was cut short goes on under the same ids.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from artcafe.model import AgentId, ChannelId, Cursor, TenantId, subscription_id
from artcafe.rules.ids import derived_id
from artcafe.tables import agent_rows, people_rows, rows
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

Place = Callable[[Cursor], Cursor]
"""A place in the old log as one in the new."""

IN_TENANT: Final = frozenset({AGENTS, CHANNELS, CHANNEL_SUBSCRIPTIONS, USER_TENANTS, USER_TENANT_INDEX})


class IdMapping(Protocol):
    """What an item becomes; None leaves it out."""

    def tenant_id(self, tenant_id: TenantId) -> TenantId: ...

    def item(self, table: Table, item: Item) -> Item | None: ...


class SameIds:
    """Everything keeps its id."""

    def tenant_id(self, tenant_id: TenantId) -> TenantId:
        """The same."""
        return tenant_id

    def item(self, _table: Table, item: Item) -> Item | None:
        """The same."""
        return item


class NewIds:
    """Tenant, agents and channels get new ids; people keep theirs. What was used, and who is invited, stays with the old tenant.

    The log is another one, so a channel has nothing removed in it yet, and cursors stand at the same messages by `place`.
    """

    def __init__(self, tenant_id: TenantId, label: str) -> None:
        self._tenant_id, self._label = tenant_id, label
        self.new_id = TenantId(self._derived("ten", tenant_id))
        self.place: Place = lambda cursor: cursor
        self.agents: dict[str, str] = {}
        self.channels: dict[str, str] = {}
        """The ids that were asked for, and the new ones."""

    def tenant_id(self, _tenant_id: TenantId) -> TenantId:
        """The new tenant's."""
        return self.new_id

    def agent(self, agent_id: str) -> AgentId:
        """What an agent is called in the copy."""
        return AgentId(self.agents.setdefault(agent_id, self._derived("agt", agent_id)))

    def sender(self, sender: str) -> str:
        """Who a message is from: an agent by its new id, a person as ever."""
        return sender if sender.startswith("usr:") else self.agent(sender)

    def channel(self, channel_id: str) -> ChannelId:
        """What a channel is called in the copy."""
        return ChannelId(self.channels.setdefault(channel_id, self._derived("chn", channel_id)))

    def item(self, table: Table, item: Item) -> Item | None:
        """The item of the copy; None for what does not come along."""
        if table is USAGE_METRICS or str(item.get("user_id", "")).startswith(people_rows.INVITATION_PREFIX):
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
            return {**named, "id": self.channel(str(item["id"]))}
        return self._subscription(named) if table is CHANNEL_SUBSCRIPTIONS else named

    def _agent(self, item: dict[str, Value]) -> Item:
        id = str(item["id"])
        if id.startswith(agent_rows.CLAIM_PREFIX):
            return {**item, "agent_id": self.agent(str(item.get("agent_id", "")))}
        channels = item.get("channels")
        if isinstance(channels, Mapping):
            item["channels"] = {self.channel(channel_id): value for channel_id, value in channels.items()}
        return {**item, "id": self.agent(id)}

    def _subscription(self, item: dict[str, Value]) -> Item:
        subscription = rows.subscription_of(item)
        channel_id, agent_id = self.channel(subscription.channel_id), self.agent(subscription.agent_id)
        start = Cursor(epoch=subscription.cursor.epoch, seq=_seq(item.get("start_seq")))
        place = self.place(subscription.cursor)
        item |= {"id": subscription_id(channel_id, agent_id), "channel_id": channel_id, "agent_id": agent_id}
        if "acked_seq" in item or place.epoch is not None:
            item |= {"start_seq": self.place(start).seq, "acked_seq": place.seq}
        return item if place.epoch is None else {**item, "epoch": place.epoch}

    def _derived(self, prefix: str, id: str) -> str:
        return derived_id(prefix, "copy", self._label, self._tenant_id, id)


def _seq(value: Value) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
