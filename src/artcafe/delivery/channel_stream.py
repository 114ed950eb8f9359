"""The stream of one channel: new messages, or those after a position named by its client."""

from __future__ import annotations

import asyncio

import msgspec

from artcafe.delivery.backlog import Backlog
from artcafe.delivery.event_stream import START, EventStream, StreamTransport
from artcafe.delivery.live_delivery import begin_without_log
from artcafe.delivery.log_delivery import begin_in_log
from artcafe.delivery.stream_services import StreamServices
from artcafe.errors import BadEventId
from artcafe.fabric.channel_kinds import KINDS
from artcafe.model import AgentPrincipal, Channel, ChannelId, Cursor, Epoch, Principal, Seq, TenantChange
from artcafe.rules.stream_positions import event_id, parse_event_id
from artcafe.supervision import Supervisor
from artcafe.wire.frames import Start


class ChannelStream(EventStream):
    """The stream of one channel, for whoever may read its messages."""

    def __init__(
        self,
        services: StreamServices,
        principal: Principal,
        transport: StreamTransport,
        group: asyncio.TaskGroup,
        supervisor: Supervisor,
    ) -> None:
        super().__init__(principal, transport, group, supervisor)
        self._services = services
        self._name = ""
        self._channel_id: ChannelId | None = None
        """None before `begin` has found the channel."""
        self._backlog = Backlog(self, self.deliveries, self.spawn)

    async def begin(self, name: str, after: Seq | None, last_event_id: str | None) -> None:
        """Begin after the event of this id, or after this sequence, or with new messages; then the first event is `start`.

        Raises `ChannelNotFound`, `Forbidden`, `BadEventId` and `Unavailable`.
        """
        self._name = name
        channel = await self._services.history.readable(self.principal, name)
        self._channel_id = channel.id
        cursor = Cursor() if last_event_id is None else parse_event_id(last_event_id)
        if not KINDS[channel.type].has_log:
            self.send_event(START, _begun(channel.id, None, None))
            await begin_without_log(self._services.hub, self, self.deliveries, channel, self.principal.sender)
            return
        start: Start = "new" if after is None else after + 1
        if last_event_id is not None:
            await self._check_known(channel, cursor)
            start = "cursor"
        delivery, opened = await begin_in_log(
            self._services.hub, self, channel, start, lambda: cursor, None, self.principal.sender
        )
        self.deliveries[channel.id] = delivery
        begun = event_id(delivery.epoch, delivery.sent) if opened.gap is None else None
        self.send_event(START, _begun(channel.id, delivery.epoch, delivery.sent), begun)
        if opened.gap is not None:
            self.send_gap(channel.id, opened.gap, opened.epoch)
        self._backlog.resume()

    async def _check_known(self, channel: Channel, cursor: Cursor) -> None:
        """Raise `BadEventId` unless the tenant's log has this position, or had it before it was restored.

        Anybody can write such an id, so unlike the cursor of an agent it proves nothing about the log.
        """
        state = await (await self._services.fabric.tenant(channel.tenant_id).connected_log()).state()
        lineage = None if state is None else state.lineage
        if cursor.epoch is None or (lineage is not None and cursor.epoch in lineage.continues):
            return
        if state is None or cursor.epoch != state.epoch:
            raise BadEventId("names another log than this tenant's")
        if cursor.seq > state.last_seq:
            raise BadEventId("is above the newest message of this tenant's log")

    def event_id(self, channel_id: ChannelId, epoch: Epoch | None, seq: Seq) -> str:
        return event_id(epoch, seq)

    def resume(self) -> None:
        self._backlog.resume()

    def concerns(self, change: TenantChange) -> bool:
        who = self.principal
        if isinstance(who, AgentPrincipal):
            is_own = who.agent_id in change.agents or (self._channel_id, who.agent_id) in change.subscriptions
        else:
            is_own = who.user_id in change.users
        return change.is_whole or is_own or self._channel_id is None or self._channel_id in change.channels

    async def check(self) -> None:
        """Check that the channel may still be read. Raises the reason to end the stream, and `Unavailable`."""
        await self._services.history.readable(self.principal, self._channel_id or self._name)

    def stop(self) -> None:
        super().stop()
        for channel_id in list(self.deliveries):
            delivery = self.deliveries.pop(channel_id)
            delivery.feed.leave(delivery)
            self._services.hub.release(delivery.feed)


def _begun(channel_id: ChannelId, epoch: Epoch | None, seq: Seq | None) -> bytes:
    return msgspec.json.encode({"channel": channel_id, "epoch": epoch, "seq": seq})
