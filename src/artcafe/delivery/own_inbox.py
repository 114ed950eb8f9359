"""The inbox of a connected agent while it has no delivery: nearly always, for an idle agent."""

from __future__ import annotations

from artcafe.delivery.hub import Hub
from artcafe.errors import AckBeyondSent, NotSubscribed
from artcafe.fabric.inbox_router import InboxWaiter
from artcafe.model import AgentPrincipal, ChannelId, Cursor, Seq, Subscription
from artcafe.rules import inboxes
from artcafe.rules.inboxes import InboxSubscription


class OwnInbox:
    """The inbox of one connection's agent. `waiter` is woken when the inbox has something to deliver."""

    __slots__ = ("_agent", "_hub", "_waiter", "position")

    def __init__(self, hub: Hub, agent: AgentPrincipal, waiter: InboxWaiter) -> None:
        self._hub, self._agent, self._waiter = hub, agent, waiter
        self.position: Cursor | None = None
        """While the connection waits: everything up to here needs no delivery."""

    @property
    def id(self) -> ChannelId:
        """Return the id of the inbox."""
        return inboxes.inbox_of(self._agent.agent_id)

    def wait(self, row: InboxSubscription, cursor: Cursor) -> None:
        """Wake the waiter once the inbox has something above the cursor. Raises `Unavailable` while the server shuts down."""
        if self.position is None:
            self._hub.await_inbox(self._waiter, row, cursor)
            self.position = cursor

    def wake(self, due: dict[ChannelId, Subscription]) -> None:
        """Add the subscription of a delivery, unless the connection has left meanwhile."""
        if self.position is not None:
            due[self.id] = inboxes.subscription_at(self._agent, self.position)
            self.position = None

    def check_ack(self, channel: str, seq: Seq) -> None:
        """Raise `NotSubscribed` unless the channel is this inbox and waits, and `AckBeyondSent` for an ack above its position."""
        if self.position is None or channel != self.id:
            raise NotSubscribed(channel)
        if seq > self.position.seq:
            raise AckBeyondSent(channel, seq, self.position.seq)

    def leave(self, channel_id: ChannelId) -> bool:
        """Wait no more if the channel is this inbox. Return whether the connection waited for it."""
        if self.position is None or channel_id != self.id:
            return False
        self.position = None
        self._hub.leave_inbox(self._waiter, self._agent)
        return True
