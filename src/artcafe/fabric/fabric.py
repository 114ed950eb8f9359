"""NATS as the services see it: one room for every tenant, opened when somebody needs it, closed when nobody did for a while."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import secrets
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

import msgspec

from artcafe.errors import LogRefused, NatsConnectionLost, NoResponder, OurFault
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.announcements import Announcements
from artcafe.fabric.audit_log import AuditLog
from artcafe.fabric.log_writer import BATCH_MESSAGES, LogWriter
from artcafe.fabric.nats.cluster import REPLICAS, replica_count
from artcafe.fabric.nats.connection import NatsConnection, unreachable
from artcafe.fabric.nats.server_proof import ServerProof
from artcafe.fabric.presence_registry import LEASE_S, RENEW_S, PresenceRegistry
from artcafe.fabric.storage_probe import StorageProbe
from artcafe.fabric.tenant_fabric import TenantFabric
from artcafe.fabric.tenant_log import TenantLog
from artcafe.model import ChannelId, Cursor, TenantId
from artcafe.observe.logs import log
from artcafe.rules.subjects import Subject
from artcafe.supervision import Supervisor

IDLE_S: Final = 300.0
"""A tenant whom nobody followed or wrote to for so long is let go: its connection, some 100 KB here and in NATS."""
MOST_UNUSED: Final = 256
"""Rooms that stay open though nobody uses them, so that a row of questions about many tenants does not open one for each."""
BUSY_S: Final = 15.0
"""A tenant used within this time may have a publish under way (`log_writer.PUBLISH_TIMEOUT_S`), and is not closed for another."""
SWEEP_S: Final = 30.0
COUNT_S: Final = 5.0

CLAIMS_UPDATE: Final = Subject("$SYS.REQ.CLAIMS.UPDATE")
"""Tells NATS of an account, by its JWT; every node keeps it."""
CLAIMS_DELETE: Final = Subject("$SYS.REQ.CLAIMS.DELETE")


class Broker(NamedTuple):
    """Where NATS is reached and how it is recognised: what `Fabric` is made of besides the accounts."""

    urls: Sequence[str]
    tls: ssl.SSLContext | None = None
    is_embedded: bool = False


class Fabric:
    """The way into NATS. `run` must run before anything else is asked."""

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
        most_unused: int = MOST_UNUSED,
        busy_s: float = BUSY_S,
    ) -> None:
        """`urls` is read anew for each connection. `tls` checks NATS's certificates; None: as the system does.

        `is_embedded`: NATS is this machine's, so that TLS for the system account proves the other connections (`server_proof`).

        `lease_s` and `renew_s`: how long other servers' word on who is connected is believed, and how often ours is given.
        """
        self._urls, self._accounts, self._tls = urls, accounts, tls
        # While a cluster forms it may count fewer servers than we were told of.
        self._replicas = REPLICAS if len(self._urls) >= REPLICAS else replicas
        self._most_unused, self._busy_s = most_unused, busy_s
        self._idle_s, self._sweep_s, self._lease_s, self._renew_s = idle_s, sweep_s, lease_s, renew_s
        self._server = secrets.token_hex(8)
        """This server among the others, for as long as it runs."""
        self._system = NatsConnection("system", urls, accounts.system_user, tls=tls)
        self._proof = ServerProof(self._system) if is_embedded else None
        self._platform = NatsConnection("platform", urls, accounts.platform_user, tls=tls, proof=self._proof)
        self.announcements = Announcements(self._platform, self._server)
        self.audit_log = AuditLog(self._platform, replicas=self._replicas)
        self._probe = StorageProbe(self._platform, replicas=self._replicas)
        self._rooms: dict[TenantId, TenantFabric] = {}
        self._group: asyncio.TaskGroup | None = None
        self._closing = asyncio.Event()
        self._watchers: list[Callable[[TenantId], None]] = []
        self._quota: Callable[[TenantId], Awaitable[int]] | None = None
        self._most_a_group: Callable[[], int] = lambda: BATCH_MESSAGES
        self.supervisor = Supervisor("fabric")

    async def run(self) -> None:
        """Serves every tenant until `close`; then each in turn finishes what it has in flight."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self.supervisor.keep(self._system.run))
            group.create_task(self.supervisor.keep(self._platform.run))
            loops = [group.create_task(self.supervisor.keep(loop)) for loop in (self._sweep, self.announcements.run)]
            await self._closing.wait()
            for loop in loops:
                loop.cancel()
            for room in self._rooms.values():
                room.leave.set()
            self._platform.close()
            self._system.close()

    def close(self) -> None:
        """Ends `run`. May be repeated."""
        self._closing.set()

    async def check_storage(self, timeout_s: float) -> None:
        """Have NATS store a message now. Raises `TimeoutError` when it confirms nothing in time, and any of our faults."""
        await self._probe.store(timeout_s)

    async def wait_up(self, timeout_s: float) -> None:
        """Raises `Unavailable` unless NATS is connected within the time."""
        await self._system.wait_up(timeout_s)

    @property
    def problem(self) -> str | None:
        """Why there was no connection at the last try, in the words of whoever refused."""
        return self._system.problem

    async def update_replicas(self, timeout_s: float) -> int:
        """Has each log kept as many times as the NATS cluster has room for, and returns how many. Waits for NATS.

        A cluster that has grown since gets more; never fewer. Raises `Unavailable` where NATS doesn't say within the time.
        """
        self._replicas = max(self._replicas, await replica_count(self._system, within_s=timeout_s))
        for room in self._rooms.values():
            room.log.replicas = self._replicas
        self.audit_log.replicas = self._probe.replicas = self._replicas
        return self._replicas

    def peek(self, tenant_id: TenantId) -> TenantFabric | None:
        """The tenant's room if it is open already."""
        room = self._rooms.get(tenant_id)
        if room is not None:
            room.used_at = time.monotonic()
        return room

    def tenant(self, tenant_id: TenantId, *, is_needed: bool = True) -> TenantFabric:
        """The tenant's room, opened if need be. It connects by itself; whoever needs the connection waits on its `connection`.

        Raises `Unavailable` while the server ends, and where many rooms are open that nobody uses unless one `is_needed`.
        """
        room = self.peek(tenant_id)
        if room is None:
            is_crowded = self._close_unused()
            if self._group is None or self._closing.is_set() or (is_crowded and not is_needed):
                raise unreachable()

            async def admit() -> None:
                await tell_system(self._system, CLAIMS_UPDATE, self._accounts.account_jwt(tenant_id))

            connection = NatsConnection(
                f"tenant {tenant_id}", self._urls, lambda: self._accounts.user(tenant_id), admit, tls=self._tls, proof=self._proof
            )
            roster = PresenceRegistry(connection, self._server, lease_s=self._lease_s, renew_s=self._renew_s)
            quota = None if self._quota is None else partial(self._quota, tenant_id)
            tenant_log = TenantLog(connection, replicas=self._replicas, quota=quota)
            room = TenantFabric(tenant_id, connection, LogWriter(tenant_log, max_group=self._most_a_group), tenant_log, roster)
            self._rooms[tenant_id] = room
            # A fresh context: what it logs belongs to no request, though one was the first to need it.
            self._group.create_task(self._keep(room), name=f"room {tenant_id}", context=contextvars.Context())
        return room

    async def _keep(self, room: TenantFabric) -> None:
        """Run a tenant's room. An unforeseen exception ends this room and no other; its agents are closed with 4000, so that they
        connect again and find a new room."""
        with self.supervisor.contain(tenant=room.tenant_id):
            await room.run()
            return
        self._leave(room)
        for callback in self._watchers:
            with self.supervisor.contain(tenant=room.tenant_id):
                callback(room.tenant_id)

    def _close_unused(self) -> bool:
        """Make room for one more by closing what was unused for longest. Returns whether there are too many all the same."""
        if len(self._rooms) < self._most_unused:
            return False
        unused = sorted((room for room in self._rooms.values() if not room.is_used), key=lambda room: room.used_at)
        excess = max(0, len(unused) - self._most_unused + 1)
        idle = [room for room in unused[:excess] if time.monotonic() - room.used_at >= self._busy_s]
        for room in idle:
            self._leave(room)
        return len(idle) < excess

    def limit_storage(self, quota: Callable[[TenantId], Awaitable[int]]) -> None:
        """Bounds each log that is made from here on by the bytes that `quota` says of its tenant then."""
        self._quota = quota

    def set_group_limit(self, most: Callable[[], int]) -> None:
        """Have `most` say, before each group commit, how many messages it may hold."""
        self._most_a_group = most

    def open_tenants(self) -> list[TenantFabric]:
        """The rooms of this moment. That they were looked at does not keep them."""
        return list(self._rooms.values())

    def on_tenant_failure(self, callback: Callable[[TenantId], None]) -> None:
        """Has `callback` called with a tenant whose room has failed: whatever was followed in it is followed no more."""
        self._watchers.append(callback)

    async def position(self, tenant_id: TenantId) -> Cursor:
        """Where the tenant's log stands now: a subscription that begins here gets every later message. Raises `Unavailable`."""
        room = self.tenant(tenant_id)
        await room.connection.wait_up()
        state = await room.log.state()
        return Cursor() if state is None else Cursor(epoch=state.epoch, seq=state.last_seq)

    async def purge(self, tenant_id: TenantId, channel_id: ChannelId) -> None:
        """Removes a channel's messages. May be repeated. Raises `Unavailable`."""
        room = self.tenant(tenant_id)
        await room.connection.wait_up()
        await room.log.purge(channel_id)

    async def drop(self, tenant_id: TenantId) -> None:
        """Removes all of a tenant: first its log, which would come back with its account, then the account. May be repeated.

        Raises `Unavailable`.
        """
        room = self.tenant(tenant_id)
        await room.connection.wait_up()
        room.writer.close()  # or what it has in flight would make the log anew
        try:
            await room.log.drop()
        finally:
            self._leave(room)
        await tell_system(self._system, CLAIMS_DELETE, self._accounts.deletion_jwt(tenant_id))

    def _leave(self, room: TenantFabric) -> None:
        room.leave.set()
        if self._rooms.get(room.tenant_id) is room:
            del self._rooms[room.tenant_id]

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self._sweep_s)
            with self.supervisor.contain(), contextlib.suppress(OurFault):  # It is tried again, and what there is stays.
                await self.update_replicas(COUNT_S)
                await self.audit_log.settle()
                await self._probe.settle()
            for room in list(self._rooms.values()):
                if not room.is_used and time.monotonic() - room.used_at > self._idle_s:
                    log.debug("fabric.room_closed", tenant=room.tenant_id)
                    self._leave(room)


async def tell_system(system: NatsConnection, subject: Subject, jwt: str) -> None:
    """A request of the system account. Raises `Unavailable`, and `LogRefused` with what NATS has against it."""
    try:
        answer = msgspec.json.decode((await system.request(subject, jwt.encode())).data)
    except (TimeoutError, NoResponder, NatsConnectionLost) as exc:
        raise unreachable() from exc
    if "error" in answer:
        raise LogRefused(answer["error"].get("code", 0), answer["error"].get("description", ""))
