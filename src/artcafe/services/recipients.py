"""Where the recipients of messages are: by their rows, their presence, and the positions in the memory of all servers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import Final

from artcafe.fabric.fabric import Fabric
from artcafe.fabric.position_exchange import AgentPosition, Wanted
from artcafe.fabric.presence_registry import PresenceRegistry
from artcafe.fabric.tenant_fabric import TenantFabric
from artcafe.model import AgentId, ChannelId, Permission, Seq, Subscription, TenantId
from artcafe.observe.clock import Clock
from artcafe.rules import inboxes
from artcafe.rules.pages import Page, PageRequest, each_page
from artcafe.rules.start_position import LogLineage
from artcafe.services.cursors import Cursors
from artcafe.services.delivery_states import DeliveryState, state_of_positions, state_of_row
from artcafe.services.presence import View
from artcafe.tables.store import Store

ReadSockets = Callable[[TenantId, Wanted], Sequence[AgentPosition]]
"""Return the positions of these agents' sockets on this server."""

MAX_RECIPIENTS: Final = 1000
"""Subscriptions of a channel whose messages are followed by receipts. For more of them, the pages over REST remain."""


def _no_sockets(_: TenantId, __: Wanted) -> Sequence[AgentPosition]:
    return ()


class Look:
    """What is known about some agents at one moment."""

    def __init__(
        self, registry: PresenceRegistry, positions: Iterable[AgentPosition], answered: set[str], now: datetime, *, is_known: bool
    ) -> None:
        self._registry, self._answered, self.now, self._is_known = registry, answered, now, is_known
        self._positions: defaultdict[tuple[ChannelId, AgentId], list[AgentPosition]] = defaultdict(list)
        for position in positions:
            self._positions[position.channel, position.agent].append(position)

    def state(self, row: Subscription, seq: Seq, lineage: LogLineage) -> DeliveryState:
        """Return the state of a message for the agent of a subscription. An ack or a delivery is shown only if it is known."""
        known = state_of_row(row, seq, lineage)
        known = known or state_of_positions(self._positions.get((row.channel_id, row.agent_id), ()), seq, lineage.epoch)
        if known is not None:
            return known
        if not self._is_known:
            return DeliveryState.UNKNOWN
        if self._registry.find(row.agent_id) is None:
            return DeliveryState.AWAY
        has_answers = self._answered.issuperset(self._registry.servers_of(row.agent_id))
        return DeliveryState.PENDING if has_answers else DeliveryState.UNKNOWN

    def newest_ack(self, row: Subscription, lineage: LogLineage) -> Seq | None:
        """Return the highest ack in the memory of a server and not yet in the row, or None."""
        positions = self._positions.get((row.channel_id, row.agent_id), ())
        highest = max((each.acked for each in positions if each.epoch == lineage.epoch), default=0)
        return highest if highest > lineage.to_seq(row.cursor) else None

    def last_seen(self, row: Subscription) -> datetime | None:
        """Return when the agent was last known to be connected; None if that is unknown."""
        return View(self._registry).last_seen(row.agent_id, self.now, row.acked_at) if self._is_known else None


class Recipients:
    """Reads the recipients of messages."""

    def __init__(self, store: Store, fabric: Fabric, cursors: Cursors, clock: Clock) -> None:
        self._store, self._fabric, self._cursors, self._clock = store, fabric, cursors, clock
        self._read_sockets: ReadSockets = _no_sockets
        fabric.on_open(self._on_open)

    def set_sockets(self, read_sockets: ReadSockets) -> None:
        """Read the sockets of this server by `read_sockets`, for this server's receipts and for the others'."""
        self._read_sockets = read_sockets

    def _on_open(self, tenant_fabric: TenantFabric) -> None:
        tenant_id = tenant_fabric.tenant_id
        tenant_fabric.positions.read = lambda wanted: self.on_this_server(tenant_id, wanted)

    def on_this_server(self, tenant_id: TenantId, wanted: Wanted) -> list[AgentPosition]:
        """Return the positions of agents in channels as this server knows them: of its sockets, and acks not written yet."""
        found = list(self._read_sockets(tenant_id, wanted))
        for channel_id, agents in wanted.items():
            for agent_id in agents:
                cursor = self._cursors.known(tenant_id, channel_id, agent_id)
                if cursor is not None:
                    found.append(AgentPosition(channel_id, agent_id, cursor.epoch, cursor.seq, []))
        return found

    async def subscriptions(self, tenant_id: TenantId, channel_id: ChannelId) -> dict[AgentId, Subscription] | None:
        """Return the subscriptions of a channel that may receive it, paused ones too, or None if there are more than
        `MAX_RECIPIENTS`. Raises `Unavailable`."""
        found: dict[AgentId, Subscription] = {}
        async for page in each_page(partial(self.list, tenant_id, channel_id)):
            found |= {row.agent_id: row for row in page.items if Permission.RECEIVE in row.permissions}
            if len(found) > MAX_RECIPIENTS:
                return None
        return found

    async def list(self, tenant_id: TenantId, channel_id: ChannelId, page_request: PageRequest) -> Page[Subscription]:
        """Return a page of a channel's subscriptions; of an inbox, the one of its agent. Raises `Unavailable`."""
        tenant, owner = self._store.tenant(tenant_id), inboxes.owner_of(channel_id)
        if owner is None:
            return await tenant.subscriptions.of_channel(channel_id, page_request)
        agent = await tenant.agent(owner)
        return Page(() if agent is None else (inboxes.subscription_of(agent),), None)

    async def look(self, tenant_id: TenantId, wanted: Wanted) -> Look:
        """Ask where these agents are, in these channels. Raises `Unavailable`."""
        tenant_fabric = self._fabric.tenant(tenant_id)
        registry = tenant_fabric.presence
        is_known = await registry.is_known()
        elsewhere = {
            channel_id: [agent_id for agent_id in agents if registry.servers_of(agent_id)]
            for channel_id, agents in wanted.items()
        }
        asked = {channel_id: agents for channel_id, agents in elsewhere.items() if agents}
        servers = {server for agents in asked.values() for agent_id in agents for server in registry.servers_of(agent_id)}
        there, answered = await tenant_fabric.positions.ask(asked, servers) if servers else ([], set[str]())
        here = self.on_this_server(tenant_id, wanted)
        return Look(registry, [*here, *there], answered, self._clock(), is_known=is_known)
