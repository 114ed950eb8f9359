"""The server's access to NATS: one `TenantFabric` for each tenant in use, opened on demand and closed when idle."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import secrets
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from hashlib import sha256
from typing import Final, NamedTuple

from artcafe.errors import OurFault
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.announcements import Announcements
from artcafe.fabric.audit_log import AuditLog
from artcafe.fabric.connection_census import ConnectionCensus
from artcafe.fabric.counters import DAILY, RECENT, Counters
from artcafe.fabric.hold_requests import HoldRequests
from artcafe.fabric.log_watch import LogWatch
from artcafe.fabric.log_writer import BATCH_MESSAGES, LogWriter
from artcafe.fabric.nats.account_claims import delete_account, register_account
from artcafe.fabric.nats.cluster import REPLICAS, JetStreamUse, jetstream_use, replica_count
from artcafe.fabric.nats.connection import NatsConnection, unreachable
from artcafe.fabric.nats.liveness import Liveness
from artcafe.fabric.nats.server_proof import ServerProof
from artcafe.fabric.nats.server_states import NatsState, nats_state
from artcafe.fabric.outcome_exchange import OutcomeExchange
from artcafe.fabric.position_exchange import PositionExchange
from artcafe.fabric.presence_registry import LEASE_S, RENEW_S, PresenceRegistry
from artcafe.fabric.queue_consumer import QueueConsumer
from artcafe.fabric.request_exchange import Ask, RequestExchange, Withdraw
from artcafe.fabric.scheduled_minutes import ScheduledMinutes
from artcafe.fabric.server_reports import ServerReports
from artcafe.fabric.storage_probe import StorageProbe
from artcafe.fabric.stored_counts import StoredSegments
from artcafe.fabric.tenant_fabric import TenantFabric
from artcafe.fabric.tenant_log import TenantLog
from artcafe.model import ChannelId, Cursor, Seq, TenantId
from artcafe.observe.logs import log
from artcafe.observe.tracing import Tracing
from artcafe.rules import subjects
from artcafe.supervision import Supervisor

IDLE_S: Final = 300.0
"""A tenant without followers and publishes for this long is closed. An open tenant takes some 100 KB here and in NATS."""
MAX_UNUSED: Final = 256
"""How many unused tenants stay open, to avoid a connection for each of many queried tenants."""
BUSY_S: Final = 15.0
"""A tenant requested within this time may have a publish in flight (`log_writer.PUBLISH_TIMEOUT_S`), and stays open."""
SWEEP_S: Final = 30.0
COUNT_TIMEOUT_S: Final = 5.0


class Broker(NamedTuple):
    """The address of NATS and the way to verify it: the arguments of `Fabric` besides the accounts."""

    urls: Sequence[str]
    tls: ssl.SSLContext | None = None
    is_embedded: bool = False


class Fabric:
    """All tenants' access to NATS. Call other methods only while `run` runs."""

    def __init__(
        self,
        urls: Sequence[str],
        accounts: Accounts,
        *,
        replicas: int = 1,
        idle_s: float = IDLE_S,
        sweep_s: float = SWEEP_S,
        lease_s: float = LEASE_S,
        renew_s: float = RENEW_S,
        tls: ssl.SSLContext | None = None,
        is_embedded: bool = False,
        max_unused: int = MAX_UNUSED,
        busy_s: float = BUSY_S,
    ) -> None:
        """`urls` is read again for each connection. `tls` verifies NATS's certificates; None uses the system's authorities.

        `is_embedded`: NATS runs on this machine, so the system account's TLS connection proves all others (`server_proof`).

        `lease_s` and `renew_s`: how long other servers' presence updates are valid, and how often this server renews its own.
        """
        self._urls, self._accounts, self._tls = urls, accounts, tls
        # While a cluster forms, it may report fewer servers than `urls` lists.
        self._replicas = REPLICAS if len(self._urls) >= REPLICAS else replicas
        self._max_unused, self._busy_s = max_unused, busy_s
        self._idle_s, self._sweep_s, self._lease_s, self._renew_s = idle_s, sweep_s, lease_s, renew_s
        self._server = secrets.token_hex(8)
        """The name of this server process among the others."""
        self._liveness = Liveness()
        self._system = NatsConnection("system", urls, accounts.system_user, tls=tls, liveness=self._liveness)
        self._proof = ServerProof(self._system) if is_embedded else None
        self._platform = NatsConnection(
            "platform", urls, accounts.platform_user, tls=tls, proof=self._proof, liveness=self._liveness
        )
        self.announcements = Announcements(self._platform, self._server)
        self.census = ConnectionCensus(self._platform, self._server, self.announcements.peers)
        self.server_reports = ServerReports(self._platform, self._server, self.announcements)
        self.hold_requests = HoldRequests(self._platform, self._server)
        self.audit_log = AuditLog(self._platform, replicas=self._replicas)
        self._probe = StorageProbe(self._platform, replicas=self._replicas)
        self.recent_counters, self.daily_counters = (
            Counters(self._platform, stream, self._renew_platform, replicas=self._replicas) for stream in (RECENT, DAILY)
        )
        self.scheduled_minutes = ScheduledMinutes(self._platform, replicas=self._replicas)
        self._tenants: dict[TenantId, TenantFabric] = {}
        self._log_watch = LogWatch(self._system, accounts, self.open_tenants)
        self._group: asyncio.TaskGroup | None = None
        self._closing = asyncio.Event()
        self._on_failure: list[Callable[[TenantId], None]] = []
        self._on_open: list[Callable[[TenantFabric], None]] = []
        self._quota: Callable[[TenantId], Awaitable[int]] | None = None
        self._max_group: Callable[[], int] = lambda: BATCH_MESSAGES
        self._is_metered = False
        self._tracing: Tracing | None = None
        self._on_request: Callable[[TenantId, Ask | Withdraw], None] = lambda _, __: None
        self.supervisor = Supervisor("fabric")

    # --- set by services before tenants are opened -------------------------------------------------------------------

    def set_quota(self, quota: Callable[[TenantId], Awaitable[int]]) -> None:
        """Limit each log created from now on to the bytes that `quota` returns for its tenant then."""
        self._quota = quota

    def set_group_limit(self, max_group: Callable[[], int]) -> None:
        """Call `max_group` before each group commit for the number of messages it may contain."""
        self._max_group = max_group

    def enable_metering(self) -> None:
        """Note the stored messages of each tenant opened from now on, for the meter (`LogWriter.stored`)."""
        self._is_metered = True

    def set_tracing(self, tracing: Tracing | None) -> None:
        """Record a span of each group commit of each tenant opened from now on."""
        self._tracing = tracing

    def on_open(self, callback: Callable[[TenantFabric], None]) -> None:
        """Call `callback` with each tenant that is opened from now on, before anything is received from it."""
        self._on_open.append(callback)

    def on_request(self, callback: Callable[[TenantId, Ask | Withdraw], None]) -> None:
        """Call `callback` with the requests of other servers to agents on this one, for tenants opened from now on."""
        self._on_request = callback

    def on_tenant_failure(self, callback: Callable[[TenantId], None]) -> None:
        """Call `callback` with each failed tenant. All its subscriptions on this server have ended."""
        self._on_failure.append(callback)

    async def run(self) -> None:
        """Serve all tenants until `close`, then let each finish its publishes in flight."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self.supervisor.keep(self._system.run))
            group.create_task(self.supervisor.keep(self._platform.run))
            exchanges = self.announcements.run, self.census.run, self.hold_requests.run, self.server_reports.run
            watches = self._sweep, self._renew_presence, self._log_watch.run
            loops = [group.create_task(self.supervisor.keep(loop)) for loop in (*watches, *exchanges)]
            await self._closing.wait()
            for loop in loops:
                loop.cancel()
            for tenant in self._tenants.values():
                tenant.leave.set()
            self._platform.close()
            self._system.close()

    def close(self) -> None:
        """End `run`. May be repeated."""
        self._closing.set()

    async def check_storage(self, timeout_s: float) -> None:
        """Store a message in NATS. Raise `TimeoutError` without a confirmation in time, or an `OurFault`."""
        await self._probe.store(timeout_s)

    async def wait_up(self, timeout_s: float) -> None:
        """Wait for the connection to NATS. Raise `Unavailable` after `timeout_s`."""
        await self._system.wait_up(timeout_s)

    @property
    def problem(self) -> str | None:
        """The error text of the last failed attempt to connect."""
        return self._system.problem

    async def update_replicas(self, timeout_s: float) -> int:
        """Adapt the number of replicas of every log to the size of the NATS cluster, and return it. Wait for NATS.

        The number rises when the cluster has grown, and never falls. Raise `Unavailable` without an answer in time.
        """
        self._replicas = max(self._replicas, await replica_count(self._system, within_s=timeout_s))
        for tenant in self._tenants.values():
            tenant.log.replicas = self._replicas
        for each in self._platform_streams:
            each.replicas = self._replicas
        return self._replicas

    @property
    def _platform_streams(self) -> tuple[AuditLog | StorageProbe | Counters | ScheduledMinutes, ...]:
        return self.audit_log, self._probe, self.recent_counters, self.daily_counters, self.scheduled_minutes

    async def _renew_platform(self) -> None:
        await register_account(self._system, self._accounts.platform_jwt())

    @property
    def is_up(self) -> bool:
        """Whether NATS is connected now."""
        return self._system.is_up

    async def jetstream_use(self, within_s: float) -> JetStreamUse:
        """Return what the NATS servers that answer in this time store. Raise `Unavailable` or `NatsConnectionLost`."""
        return await jetstream_use(self._system, within_s=within_s)

    async def nats_state(self, within_s: float) -> NatsState | None:
        """Return what the NATS servers that answer in this time report; None if none does."""
        return await nats_state(self._system, within_s=within_s)

    def peek(self, tenant_id: TenantId) -> TenantFabric | None:
        """Return the tenant if it is open. This counts as use: it stays open for `IDLE_S` more."""
        tenant = self._tenants.get(tenant_id)
        if tenant is not None:
            tenant.used_at = time.monotonic()
        return tenant

    def tenant(self, tenant_id: TenantId, *, is_needed: bool = True) -> TenantFabric:
        """Return the tenant, opened if necessary. It connects in the background; its methods wait for the connection.

        Raise `Unavailable` during shutdown. Without `is_needed`, raise it also when too many unused tenants are open.
        """
        return self.peek(tenant_id) or self._open(tenant_id, is_needed=is_needed)

    def _open(self, tenant_id: TenantId, *, is_needed: bool) -> TenantFabric:
        """Make a tenant's part and run it. Raise `Unavailable` as `tenant` does."""
        is_crowded = self._close_unused()
        if self._group is None or self._closing.is_set() or (is_crowded and not is_needed):
            raise unreachable()
        tenant = self._tenants[tenant_id] = self._make(tenant_id)
        for callback in self._on_open:
            callback(tenant)
        # An empty context: its log events must not carry the ids of the request that opened it.
        self._group.create_task(self._keep(tenant), name=f"tenant {tenant_id}", context=contextvars.Context())
        return tenant

    def _make(self, tenant_id: TenantId) -> TenantFabric:
        """Return a tenant's part of NATS, which does not run yet."""

        async def admit() -> None:
            await register_account(self._system, self._accounts.account_jwt(tenant_id))

        connection = NatsConnection(
            f"tenant {tenant_id}",
            self._urls,
            lambda: self._accounts.user(tenant_id),
            admit,
            tls=self._tls,
            proof=self._proof,
            liveness=self._liveness,
        )
        requests = RequestExchange(connection, self._server, partial(self._on_request, tenant_id))
        presence = PresenceRegistry(connection, self._server, lease_s=self._lease_s, prepare=requests.open)
        quota = None if self._quota is None else partial(self._quota, tenant_id)
        tenant_log = TenantLog(connection, replicas=self._replicas, quota=quota)
        stored = StoredSegments() if self._is_metered else None
        start_store = None if self._tracing is None else partial(self._tracing.start_store, tenant_id)
        writer = LogWriter(tenant_log, max_group=self._max_group, stored=stored, tenant_id=tenant_id, start_store=start_store)
        positions = PositionExchange(connection, self._server)
        outcomes = OutcomeExchange(connection, self._server)
        return TenantFabric(tenant_id, connection, writer, tenant_log, presence, requests, positions, outcomes)

    async def _keep(self, tenant: TenantFabric) -> None:
        """Run a tenant. An unforeseen exception closes this tenant only; its agents' sockets are closed with 4000, and open it
        again when they reconnect."""
        with self.supervisor.contain(tenant=tenant.tenant_id):
            await tenant.run()
            return
        self._leave(tenant)
        for callback in self._on_failure:
            with self.supervisor.contain(tenant=tenant.tenant_id):
                callback(tenant.tenant_id)

    def _close_unused(self) -> bool:
        """Close the tenants unused for longest, to make space for one more. Return whether there are still too many."""
        if len(self._tenants) < self._max_unused:
            return False
        unused = sorted((tenant for tenant in self._tenants.values() if not tenant.is_used), key=lambda tenant: tenant.used_at)
        excess = max(0, len(unused) - self._max_unused + 1)
        idle = [tenant for tenant in unused[:excess] if time.monotonic() - tenant.used_at >= self._busy_s]
        for tenant in idle:
            self._leave(tenant)
        return len(idle) < excess

    def is_first_for(self, tenant_id: TenantId) -> bool:
        """Return whether this server is to do work that one server does for a tenant: the others that run choose the same one."""

        def place(server: str) -> bytes:
            return sha256(f"{server} {tenant_id}".encode()).digest()

        mine = place(self._server)
        return all(mine < place(server) for server in self.announcements.peers())

    async def log_ends(self) -> dict[TenantId, Seq]:
        """Return the last sequence of each tenant's log, also of tenants that are not open. Raise `Unavailable`."""
        return await self._log_watch.log_ends()

    def open_tenants(self) -> list[TenantFabric]:
        """Return the open tenants. This does not count as use of them."""
        return list(self._tenants.values())

    async def position(self, tenant_id: TenantId) -> Cursor:
        """Return the end of the tenant's log: a subscription from here gets every later message. Raise `Unavailable`."""
        tenant_log = await self.tenant(tenant_id).connected_log()
        state = await tenant_log.state()
        return Cursor() if state is None else Cursor(epoch=state.epoch, seq=state.last_seq)

    async def limit_log(self, tenant_id: TenantId, max_bytes: int) -> None:
        """Set the size limit of a tenant's log; remove no message, and do nothing without a log. May be repeated. Raise
        `Unavailable`."""
        tenant_log = await self.tenant(tenant_id).connected_log()
        await tenant_log.limit(max_bytes)

    async def storage_used(self, tenant_id: TenantId) -> int:
        """Return the bytes that a tenant's messages take. Raise `Unavailable`."""
        state = await (await self.tenant(tenant_id).connected_log()).state()
        return 0 if state is None else state.size_bytes

    async def purge(self, tenant_id: TenantId, channel_id: ChannelId, *, up_to: Seq | None = None) -> None:
        """Remove a channel's messages, up to `up_to` if given; without it also its consumer, if it is a queue. May be repeated.
        Raise `Unavailable`."""
        if up_to is None:
            await self.purge_scheduled(tenant_id, channel_id)
        tenant_log = await self.tenant(tenant_id).connected_log()
        await tenant_log.purge(channel_id, up_to=up_to)
        if up_to is None:
            await QueueConsumer(tenant_log, channel_id).delete()

    async def is_queue_done(self, tenant_id: TenantId, channel_id: ChannelId) -> bool:
        """Return whether every message of a queue channel is acknowledged or terminated. Raise `Unavailable`."""
        tenant_log = await self.tenant(tenant_id).connected_log()
        last = 0 if await tenant_log.state() is None else await tenant_log.last_seq_of(channel_id)
        return last == 0 or await QueueConsumer(tenant_log, channel_id).is_done(last)

    async def delete_queue(self, tenant_id: TenantId, channel_id: ChannelId) -> None:
        """Delete the consumer of a deleted channel, if it is a queue. May be repeated. Raise `Unavailable`."""
        await QueueConsumer(await self.tenant(tenant_id).connected_log(), channel_id).delete()

    async def purge_scheduled(self, tenant_id: TenantId, channel_id: ChannelId, *, up_to: Seq | None = None) -> bool:
        """Remove a channel's scheduled messages, up to `up_to` if given: they are not delivered any more. Return False if the log
        never had any. May be repeated. Raise `Unavailable`."""
        tenant_log = await self.tenant(tenant_id).connected_log()
        if await tenant_log.state() is None or not tenant_log.has_scheduled:
            return False
        await tenant_log.purge_subject(subjects.scheduled_of(channel_id), up_to=up_to)
        return True

    async def drop(self, tenant_id: TenantId) -> None:
        """Delete a tenant's log, and then its account: deleted first, the account would bring the log back. May be repeated.
        Raise `Unavailable`."""
        tenant = self.tenant(tenant_id)
        tenant_log = await tenant.connected_log()
        tenant.writer.close()  # A publish in flight would create the log again.
        try:
            await tenant_log.drop()
        finally:
            self._leave(tenant)
        await delete_account(self._system, self._accounts.deletion_jwt(tenant_id))

    def _leave(self, tenant: TenantFabric) -> None:
        tenant.leave.set()
        if self._tenants.get(tenant.tenant_id) is tenant:
            del self._tenants[tenant.tenant_id]

    async def _renew_presence(self) -> None:
        """Have the presence of each tenant's agents renewed for the other servers, if there are any."""
        while True:
            has_peers = self.announcements.has_peers
            due = [tenant.presence for tenant in self._tenants.values() if has_peers or tenant.presence.knows_others]
            for presence in due:
                presence.renew()
                await asyncio.sleep(self._renew_s / len(due))
            if not due:
                await asyncio.sleep(self._renew_s)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self._sweep_s)
            with self.supervisor.contain(), contextlib.suppress(OurFault):  # The next sweep tries again.
                await self.update_replicas(COUNT_TIMEOUT_S)
                for each in self._platform_streams:
                    await each.raise_replicas()
            for tenant in list(self._tenants.values()):
                if not tenant.is_used and time.monotonic() - tenant.used_at > self._idle_s:
                    log.debug("fabric.tenant_closed", tenant=tenant.tenant_id)
                    self._leave(tenant)
