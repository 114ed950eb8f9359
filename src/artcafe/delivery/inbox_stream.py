"""The stream of an agent's inbox: its active subscriptions and its direct messages, from its cursors on.

It is a connection of the agent without acks or holds: messages of queues are for pulls and sockets.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from artcafe.delivery.event_stream import START, EventStream, StreamTransport
from artcafe.delivery.stream_services import StreamServices
from artcafe.delivery.subscriber import Subscriber
from artcafe.errors import OurFault
from artcafe.model import AgentPrincipal, ChannelId, Cursor, Epoch, Seq, Subscription, TenantChange
from artcafe.observe.logs import log
from artcafe.rules.stream_positions import InboxPosition
from artcafe.supervision import Supervisor

RETRY_S: Final = 0.5
"""Between two attempts to begin the agent's subscriptions while the tables or NATS are away."""


class StreamSubscriber(Subscriber):
    """The deliveries of an inbox stream: they begin at the cursors, or after the last event of an earlier stream."""

    __slots__ = ("_position",)

    def __init__(self, services: StreamServices, stream: InboxStream, agent: AgentPrincipal, position: InboxPosition) -> None:
        super().__init__(services, stream, agent, stream.deliveries, stream.spawn, None, stream, takes_queues=False)
        self._position = position

    def start_of(self, row: Subscription) -> Cursor:
        return self._position.start(row.channel_id, super().start_of(row))


class InboxStream(EventStream):
    """The stream of one agent's inbox, for that agent. `key` seals its positions: 32 bytes, the same on every server."""

    def __init__(
        self,
        services: StreamServices,
        agent: AgentPrincipal,
        transport: StreamTransport,
        group: asyncio.TaskGroup,
        supervisor: Supervisor,
        key: bytes,
    ) -> None:
        super().__init__(agent, transport, group, supervisor)
        self._services, self._agent = services, agent
        self._position = InboxPosition(key, agent.tenant_id, agent.agent_id)
        self._subscriber = self.make_subscriber()
        self._is_beginning = False

    def make_subscriber(self) -> Subscriber:
        """Return the deliveries of the stream."""
        return StreamSubscriber(self._services, self, self._agent, self._position)

    async def begin(self, last_event_id: str | None) -> None:
        """Begin at the agent's cursors, or after the event of this id. The first event is `start`.

        Raises `BadEventId` and `Unavailable`.
        """
        if last_event_id is not None:
            self._position.resume(last_event_id)
        self.send_event(START, msgspec.json.encode({"agent": self._agent.agent_id}), self._position.text())
        subscriber, self._is_beginning = self._subscriber, True
        try:
            await subscriber.read_subscriptions()
            while subscriber.is_due:
                await subscriber.begin_next()
        finally:
            self._is_beginning = False
        subscriber.backlog.resume()

    def event_id(self, channel_id: ChannelId, epoch: Epoch | None, seq: Seq) -> str:
        self._position.advance(channel_id, epoch, seq, self.deliveries[channel_id].moves)
        return self._position.text()

    def resume(self) -> None:
        self._subscriber.resume()

    def concerns(self, change: TenantChange) -> bool:
        is_subscribed = any(agent_id == self._agent.agent_id for _, agent_id in change.subscriptions)
        return change.is_whole or is_subscribed or self._agent.agent_id in change.agents

    async def check(self) -> None:
        """Deliver the agent's subscriptions as they are now, and no others. Raises `Unavailable`."""
        rows = await self._services.subscriptions.for_connect(self._agent.tenant_id, self._agent.agent_id)
        self._subscriber.apply_all(rows)
        self._begin_soon()

    def wake_inbox(self) -> None:
        """Begin the delivery of the agent's direct messages."""
        self._subscriber.wake_inbox()
        self._begin_soon()

    def _begin_soon(self) -> None:
        if not self._is_beginning and self.reason is None:
            self._is_beginning = True
            _ = self.spawn(self._begin_due)

    async def _begin_due(self) -> None:
        """Begin the due deliveries. Retry while the tables or NATS are away."""
        subscriber = self._subscriber
        try:
            while subscriber.is_due or subscriber.can_add_left_out:
                try:
                    await (subscriber.begin_next() if subscriber.is_due else subscriber.read_subscriptions())
                except OurFault as exc:
                    log.debug("stream.subscriptions_wait", error=str(exc))
                    await asyncio.sleep(RETRY_S)
                subscriber.backlog.resume()
        finally:
            self._is_beginning = False

    def stop(self) -> None:
        super().stop()
        self._subscriber.end()
