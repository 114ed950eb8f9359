"""The channels of a pull: those of the agent's active subscriptions, or a single one."""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass, field

from artcafe.delivery.delivery_services import NOT_PERMITTED, DeliveryServices
from artcafe.errors import ChannelNotFound, Conflict, Forbidden, Invalid, SubscriptionNotFound
from artcafe.fabric.channel_kinds import KINDS
from artcafe.model import AgentPrincipal, Channel, ChannelId, Permission, Subscription, SubscriptionStatus


@dataclass(frozen=True, slots=True)
class PullChannels:
    """The channels with stored messages. Those with cursors are read from the log, and queues are asked for messages."""

    with_cursors: dict[ChannelId, Channel] = field(default_factory=dict)
    subscriptions: dict[ChannelId, Subscription] = field(default_factory=dict)
    """The agent's subscriptions to `with_cursors`."""
    queues: list[Channel] = field(default_factory=list)

    def add(self, subscription: Subscription, channel: Channel) -> None:
        """Add a channel, unless it stores nothing."""
        kind = KINDS[channel.type]
        if kind.is_shared:
            self.queues.append(channel)
        elif kind.has_log:
            self.with_cursors[channel.id], self.subscriptions[channel.id] = channel, subscription

    def share_of_queues(self, limit: int) -> int:
        """Return how many of `limit` messages are asked from the queues first; with a small limit, whether any is drawn."""
        logs, queues = len(self.with_cursors), len(self.queues)
        if not queues or not logs:
            return limit if queues else 0
        share = limit * queues // (logs + queues)
        return share or int(random.randrange(logs + queues) < queues)  # noqa: S311 (for fairness; nothing depends on a secret)


async def find_channels(services: DeliveryServices, agent: AgentPrincipal, channel: str | None) -> PullChannels:
    """Read the agent's active subscriptions, or the one to `channel`, and return their channels.

    Raises, for `channel`, `SubscriptionNotFound`, `Conflict` if it is paused, `Forbidden`, and `Invalid` if it stores nothing.
    """
    found, records = PullChannels(), services.record_cache
    if channel is not None:
        row = await _active_subscription(services, agent, await records.channel_id(agent.tenant_id, channel))
        one = await records.subscribed(agent.tenant_id, row.channel_id)
        if not KINDS[one.type].has_log:
            raise Invalid("channel", "is a live channel, which stores nothing to pull: receive it on a socket")
        found.add(row, one)
        return found
    for row in await services.subscriptions.for_connect(agent.tenant_id, agent.agent_id):
        with contextlib.suppress(ChannelNotFound):  # the channel is being deleted, together with its subscriptions
            found.add(row, await records.subscribed(agent.tenant_id, row.channel_id))
    return found


async def _active_subscription(services: DeliveryServices, agent: AgentPrincipal, channel_id: ChannelId) -> Subscription:
    (row,) = await services.subscriptions.now(agent.tenant_id, [(channel_id, agent.agent_id)])
    if row is None:
        raise SubscriptionNotFound(agent.agent_id)
    if row.status is not SubscriptionStatus.ACTIVE:
        raise Conflict("this subscription is paused; resume it first, by PATCH of its status to active")
    if not row.allows(Permission.RECEIVE):
        raise Forbidden(NOT_PERMITTED, "an agent")
    return row
