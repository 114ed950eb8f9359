"""Streams of messages over HTTP: opened by one request, and ended by its client or for a reason that the last event names.

A stream acknowledges nothing, and needs no cursor: its events have ids, from which any server resumes. Like a socket it counts in
the tenant's limits of connections and in its usage; it ends when its token expires, within 5 s of a revocation (contract,
sentence 12), and when its reader takes nothing for 10 s while messages wait.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Final, Protocol

import msgspec

from artcafe.delivery.backlog import Backlog
from artcafe.delivery.delivery_services import DeliveryServices
from artcafe.delivery.event_stream import START, EventStream, StreamTransport
from artcafe.delivery.live_delivery import begin_without_log
from artcafe.delivery.log_delivery import begin_in_log
from artcafe.delivery.open_limits import OpenLimits
from artcafe.errors import (
    ArtcafeError,
    BadEventId,
    CredentialsExpired,
    Internal,
    OurFault,
    Revoked,
    ShuttingDown,
    SlowConsumer,
)
from artcafe.fabric.channel_kinds import KINDS
from artcafe.fabric.fabric import Fabric
from artcafe.model import AgentPrincipal, Channel, ChannelId, Cursor, Epoch, Principal, Seq, TenantChange, TenantId
from artcafe.observe import metrics
from artcafe.observe.clock import Clock
from artcafe.observe.logs import log
from artcafe.rules.stream_positions import event_id, parse_event_id
from artcafe.services.connections import Connections
from artcafe.services.history import MessageHistory
from artcafe.services.login import Login
from artcafe.services.member_login import MemberLogin
from artcafe.services.shares import Shares
from artcafe.services.usage_counters import UsageCounters
from artcafe.supervision import Supervisor
from artcafe.wire.frames import Start

MAX_STREAMS_PER_PRINCIPAL: Final = 10
"""Of one agent or person on one server. A browser has at most six connections to a host."""
MAX_STREAMS_PER_TENANT: Final = 500
MAX_STREAMS: Final = 2_000
"""Of one server: as many as waiting pulls. Each takes a connection."""
OPEN_STREAMS: Final = "open streams"
"""What `RateLimited` and `Overloaded` refuse."""
STALL_S: Final = 10.0
"""Longest time without a read while messages wait, as for sockets (contract, sentence 10)."""
SWEEP_S: Final = 1.0
CHECK_S: Final = 1.0
"""Shortest time between two checks of a stream after changes; a revocation has 5 s."""


class StreamServices(DeliveryServices, Protocol):
    """The services for streams."""

    @property
    def fabric(self) -> Fabric: ...

    @property
    def history(self) -> MessageHistory: ...

    @property
    def connections(self) -> Connections: ...

    @property
    def usage_counters(self) -> UsageCounters: ...

    @property
    def login(self) -> Login: ...

    @property
    def member_login(self) -> MemberLogin: ...

    @property
    def shares(self) -> Shares: ...

    @property
    def clock(self) -> Clock: ...


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
            self.send_event(START, _start(channel.id, None, None))
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
        self.send_event(START, _start(channel.id, delivery.epoch, delivery.sent), begun)
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


class Streams:
    """The streams of this server. `group` owns their tasks."""

    def __init__(
        self, services: StreamServices, group: asyncio.TaskGroup, *, sweep_s: float = SWEEP_S, stall_s: float = STALL_S
    ) -> None:
        self._services, self._group = services, group
        self._sweep_s, self.stall_s = sweep_s, stall_s
        self._limits = OpenLimits(OPEN_STREAMS, MAX_STREAMS_PER_PRINCIPAL, MAX_STREAMS_PER_TENANT, MAX_STREAMS)
        self._open: dict[TenantId, set[ChannelStream]] = {}
        self._is_draining = False
        self.supervisor = Supervisor("streams")

    def tenants(self) -> set[TenantId]:
        """Return the tenants with a stream."""
        return set(self._open)

    def by_tenant(self) -> Counter[TenantId]:
        """Return the number of streams of each tenant that has any: the live count, not to be changed."""
        return self._limits.by_tenant

    @contextlib.asynccontextmanager
    async def channel(
        self,
        principal: Principal,
        name: str,
        transport: StreamTransport,
        after: Seq | None = None,
        last_event_id: str | None = None,
    ) -> AsyncIterator[EventStream]:
        """Open the stream of the channel with this id or handle, after an earlier event, a sequence, or with new messages.

        Raises `RateLimited`, `Overloaded`, `ConnectionLimit`, `ShuttingDown`, and as `ChannelStream.begin` does.
        """
        stream = ChannelStream(self._services, principal, transport, self._group, self.supervisor)
        with self._entered(stream):
            total = await self._services.connections.enter(principal)
            self._services.usage_counters.connected(principal, total)
            try:
                await stream.begin(name, after, last_event_id)
                yield stream
            finally:
                stream.stop()
                self._services.usage_counters.disconnected(principal)
                self._services.connections.leave(principal)

    @contextlib.contextmanager
    def _entered(self, stream: ChannelStream) -> Iterator[None]:
        """Count a stream, and apply changes to it, from before its first read on."""
        if self._is_draining:
            raise ShuttingDown
        tenant_id = stream.principal.tenant_id
        with self._limits.entered(stream.principal):
            self._open.setdefault(tenant_id, set()).add(stream)
            try:
                yield
            finally:
                self._open[tenant_id].discard(stream)
                if not self._open[tenant_id]:
                    del self._open[tenant_id]

    # --- how they end --------------------------------------------------------------------------------------------------

    def on_change(self, change: TenantChange) -> None:
        """Have the affected streams check that they may go on."""
        for stream in self._open.get(change.tenant_id, ()):
            if stream.concerns(change):
                stream.check_soon(partial(self._check, stream), CHECK_S)

    async def _check(self, stream: ChannelStream) -> None:
        """End a stream whose caller may not read it any more. While the tables are away, try again."""
        try:
            async with self._services.shares.of(stream.principal).slot():
                await self._check_principal(stream.principal)
                await stream.check()
        except OurFault as exc:
            log.debug("stream.check_waits", error=str(exc))
            stream.check_soon(partial(self._check, stream), CHECK_S)
        except ArtcafeError as exc:
            self._end(stream, exc)

    async def _check_principal(self, principal: Principal) -> None:
        if not isinstance(principal, AgentPrincipal):
            await self._services.member_login.check(principal)
        elif not await self._services.login.is_current(principal):
            raise Revoked

    def _end(self, stream: ChannelStream, reason: ArtcafeError) -> None:
        """End one of many streams. An error while ending it must not keep the others open."""
        with self.supervisor.contain(reason=reason.code):
            if stream.reason is None and not isinstance(reason, ShuttingDown):
                metrics.count_error(reason)
                log.info("stream.ended", code=reason.code, tenant=stream.principal.tenant_id, principal=stream.principal.sender)
            stream.close(reason)

    def close_tenant(self, tenant_id: TenantId) -> None:
        """End a tenant's streams because a reader of its messages has failed: their clients resume and lose nothing."""
        for stream in list(self._open.get(tenant_id, ())):
            self._end(stream, Internal())

    def drain(self) -> None:
        """End every stream, and refuse new ones: the server shuts down."""
        self._is_draining = True
        for stream in self._all():
            self._end(stream, ShuttingDown())

    def _all(self) -> list[ChannelStream]:
        return [stream for streams in self._open.values() for stream in streams]

    async def run(self) -> None:
        """End streams whose token has expired, and those of readers that stall, until cancelled."""
        while True:
            await asyncio.sleep(self._sweep_s)
            now, time = self._services.clock(), asyncio.get_running_loop().time()
            for stream in self._all():
                with self.supervisor.contain():
                    if stream.until <= now:
                        self._end(stream, CredentialsExpired())
                    if stream.is_paused:
                        self._check_reader(stream, time)

    def _check_reader(self, stream: ChannelStream, time: float) -> None:
        """Close the socket of a reader that has taken no byte for `STALL_S`: it would not read a last event either."""
        waits = stream.waiting_bytes()
        since, waited = stream.slow_since or (time, waits)
        if waits < waited or stream.slow_since is None:
            stream.slow_since = (time, waits)
        elif time - since > self.stall_s:
            self._end(stream, SlowConsumer())
            stream.transport.abort()


def _start(channel_id: ChannelId, epoch: Epoch | None, seq: Seq | None) -> bytes:
    return msgspec.json.encode({"channel": channel_id, "epoch": epoch, "seq": seq})
