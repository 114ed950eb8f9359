"""Streams of messages over HTTP: opened by one request, and ended by its client or for the reason in the last event.

A stream acknowledges nothing, and needs no cursor: its events have ids, and any server resumes from one. Like a socket it counts
in the tenant's limits of connections and in its usage; it ends when its token expires, within 5 s of a revocation (contract,
sentence 12), and when its reader takes nothing for 10 s while messages wait.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Final

from artcafe.delivery.arrival_stream import ArrivalStream
from artcafe.delivery.channel_stream import ChannelStream
from artcafe.delivery.event_stream import EventStream, StreamTransport
from artcafe.delivery.inbox_stream import InboxStream
from artcafe.delivery.open_limits import OpenLimits
from artcafe.delivery.stream_services import StreamServices
from artcafe.errors import ArtcafeError, CredentialsExpired, Internal, OurFault, Revoked, ShuttingDown, SlowConsumer
from artcafe.model import AgentPrincipal, Principal, Seq, TenantChange, TenantId
from artcafe.observe import metrics
from artcafe.observe.logs import log
from artcafe.rules import access
from artcafe.supervision import Supervisor

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


class Streams:
    """The streams of this server. `group` owns their tasks."""

    def __init__(
        self,
        services: StreamServices,
        group: asyncio.TaskGroup,
        position_key: bytes,
        *,
        sweep_s: float = SWEEP_S,
        stall_s: float = STALL_S,
    ) -> None:
        """`position_key` seals the positions of inboxes: 32 bytes, the same on every server."""
        self._position_key = position_key
        self._services, self._group = services, group
        self._sweep_s, self.stall_s = sweep_s, stall_s
        self._limits = OpenLimits(OPEN_STREAMS, MAX_STREAMS_PER_PRINCIPAL, MAX_STREAMS_PER_TENANT, MAX_STREAMS)
        self._open: dict[TenantId, set[EventStream]] = {}
        self._is_draining = False
        self.supervisor = Supervisor("streams")

    def tenants(self) -> set[TenantId]:
        """Return the tenants with a stream."""
        return set(self._open)

    def by_tenant(self) -> Counter[TenantId]:
        """Return the number of streams by tenant with any: the live count, not to be changed."""
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
        async with self._opened(stream):
            await stream.begin(name, after, last_event_id)
            yield stream

    @contextlib.asynccontextmanager
    async def inbox(
        self, principal: Principal, agent_id: str, transport: StreamTransport, last_event_id: str | None = None
    ) -> AsyncIterator[EventStream]:
        """Open the stream of an agent's inbox, for that agent, at its cursors or after an earlier event.

        Raises `Forbidden`, and as `channel` and `InboxStream.begin` do.
        """
        agent = access.check_own_inbox(principal, agent_id)
        stream = InboxStream(self._services, agent, transport, self._group, self.supervisor, self._position_key)
        async with self._opened(stream):
            await stream.begin(last_event_id)
            yield stream

    @contextlib.asynccontextmanager
    async def arrivals(self, principal: AgentPrincipal, transport: StreamTransport) -> AsyncIterator[ArrivalStream]:
        """Open a stream that says when something arrives for an agent. Raises as `channel` does, and `Unavailable`."""
        stream = ArrivalStream(self._services, principal, transport, self._group, self.supervisor, self._position_key)
        async with self._opened(stream):
            await stream.begin()
            yield stream

    @contextlib.asynccontextmanager
    async def _opened(self, stream: EventStream) -> AsyncIterator[None]:
        """Count a stream as open, here and as a connection, and end its deliveries afterwards."""
        with self._entered(stream):
            total = await self._services.connections.enter(stream.principal)
            self._services.usage_counters.connected(stream.principal, total)
            try:
                yield
            finally:
                stream.stop()
                self._services.usage_counters.disconnected(stream.principal)
                self._services.connections.leave(stream.principal)

    @contextlib.contextmanager
    def _entered(self, stream: EventStream) -> Iterator[None]:
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
        """Have the affected streams check their permission to go on."""
        for stream in self._open.get(change.tenant_id, ()):
            if stream.concerns(change):
                stream.check_soon(partial(self._check, stream), CHECK_S)

    async def _check(self, stream: EventStream) -> None:
        """End a stream if its caller may not read it any more. While the tables are away, try again."""
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

    def _end(self, stream: EventStream, reason: ArtcafeError) -> None:
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

    def _all(self) -> list[EventStream]:
        return [stream for streams in self._open.values() for stream in streams]

    async def run(self) -> None:
        """End streams with an expired token, and those of stalled readers, until cancelled."""
        while True:
            await asyncio.sleep(self._sweep_s)
            now, time = self._services.clock(), asyncio.get_running_loop().time()
            for stream in self._all():
                with self.supervisor.contain():
                    if stream.until <= now:
                        self._end(stream, CredentialsExpired())
                    if stream.is_paused:
                        self._check_reader(stream, time)

    def _check_reader(self, stream: EventStream, time: float) -> None:
        """Close the socket of a reader without a read for `STALL_S`: it would not read a last event either."""
        waits = stream.waiting_bytes()
        since, waited = stream.slow_since or (time, waits)
        if waits < waited or stream.slow_since is None:
            stream.slow_since = (time, waits)
        elif time - since > self.stall_s:
            self._end(stream, SlowConsumer())
            stream.transport.abort()
