"""The gateway's door: upgrades, the sweep over all sockets (deadlines, pings, stalled readers), and closing time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from functools import partial
from http import HTTPStatus
from typing import Final

from artcafe.errors import (
    ArtcafeError,
    ConnectTimeout,
    CredentialsExpired,
    Internal,
    NoPong,
    ShuttingDown,
    SlowConsumer,
)
from artcafe.gateway.access_updates import RECHECK_S, AccessUpdates
from artcafe.gateway.admission import Admission
from artcafe.gateway.connection import Connection
from artcafe.gateway.desk import PING_S, Desk
from artcafe.gateway.opening_handshake import OpeningHandshake
from artcafe.gateway.upgrade_request import UpgradeRefused, UpgradeRequest, refusal
from artcafe.model import TenantId, UserPrincipal
from artcafe.observe.logs import Repeated, log
from artcafe.rules.connections import CountedConnection, OpenConnections
from artcafe.supervision import Supervisor

CONNECT_S: Final = 10.0
STALL_S: Final = 10.0
"""A socket that takes no byte for so long while something waits for it is closed with 4008 (contract, sentence 10)."""
SWEEP_S: Final = 1.0
BACKLOG: Final = 4096
ANSWER_S: Final = 1.0
"""How long closing time waits for publishes to be answered, and then for cursors to be written."""
ANSWER_LOOK_S: Final = 0.02
DRAIN_S: Final = 2.0
"""How long a peer may take to receive its close frame before it is cut off."""


class Gateway:
    """Every socket of this server. `group` owns their tasks."""

    def __init__(
        self,
        desk: Desk,
        group: asyncio.TaskGroup,
        *,
        sweep_s: float = SWEEP_S,
        connect_s: float = CONNECT_S,
        stall_s: float = STALL_S,
        recheck_s: float = RECHECK_S,
        admission: Admission | None = None,
        connections: OpenConnections | None = None,
    ) -> None:
        """Without `admission`, every program may connect as often as it likes; without `connections`, any number may be open."""
        self._admission = admission or Admission()
        self._open_connections = connections or OpenConnections()
        self._arriving: set[OpeningHandshake] = set()
        self._refused_origin, self._noise = Repeated("gateway.origin_refused"), Repeated("gateway.not_websocket")
        self._closed_for: dict[str, Repeated] = {}
        self._desk, self._group = desk, group
        self._sweep_s, self._connect_s, self._stall_s = sweep_s, connect_s, stall_s
        self._waiting: dict[Connection, float] = {}
        """Sockets without a successful connect, and when they came."""
        self._slots: list[set[Connection]] = [set() for _ in range(PING_S)]
        """Connected sockets, by the second of `PING_S` in which each is pinged: a sweep visits one slot, not all sockets."""
        self._now_slot = 0
        self._with_token: set[Connection] = set()
        self._stalled: dict[Connection, tuple[float, int]] = {}
        """Sockets that are not taking bytes: when they last took any, and how many were waiting then."""
        self._closing: dict[Connection, float] = {}
        self.access_updates = AccessUpdates(desk, recheck_s)
        self._is_draining = False
        self._gone = asyncio.Event()
        self._server: asyncio.Server | None = None
        self.supervisor = Supervisor("gateway")

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Opens the door and returns its port. Raises `OSError` when it cannot be had."""
        self._server = await asyncio.get_running_loop().create_server(
            lambda: OpeningHandshake(self, CONNECT_S),
            host,
            port,
            backlog=BACKLOG,
            ssl=tls,
            ssl_handshake_timeout=None if tls is None else CONNECT_S,
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def adopt(self, connection: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Serve a connection that another process has accepted. Raises OSError where it has ended, or its TLS failed."""
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: OpeningHandshake(self, CONNECT_S),
            connection,
            ssl=tls,
            ssl_handshake_timeout=None if tls is None else CONNECT_S,
        )

    async def run(self) -> None:
        """Sweeps over the sockets every `sweep_s`, until cancelled."""
        while True:
            await asyncio.sleep(self._sweep_s)
            self._sweep(time.monotonic())

    def _sweep(self, now: float) -> None:
        steps = (
            partial(self._end_unproven, now),
            self._end_expired,
            partial(self._end_stalled, now),
            partial(self._abort_unwilling, now),
            self._ping_slot,
        )
        for step in steps:
            with self.supervisor.contain():
                step()

    async def drain(self) -> None:
        """Close every socket with 4000: take no new one, answer what was published, and write what was acknowledged."""
        self._is_draining = True
        if self._server is not None:
            self._server.close()
        for handshake in list(self._arriving):
            handshake.abort()
        await self._answer_all()
        for connection in self.connections():
            self._close(connection, ShuttingDown())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                while self._waiting or any(self._slots):
                    self._gone.clear()
                    await self._gone.wait()
        for connection in self.connections():
            connection.abort()
        await self._desk.cursors.write_all()

    async def _answer_all(self) -> None:
        """Let what was published be answered and what was acknowledged be written, within `ANSWER_S` each."""
        for connection in self.connections():
            connection.conversation.wind_down()
        for _ in range(round(ANSWER_S / ANSWER_LOOK_S)):
            if not any(connection.conversation.is_busy for connection in self.connections()):
                break
            await asyncio.sleep(ANSWER_LOOK_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                await self._desk.cursors.write_all()

    def connections(self) -> list[Connection]:
        return [*self._waiting, *(each for slot in self._slots for each in slot)]

    # --- coming ------------------------------------------------------------------------------------------------------

    def enter(self, peer: str | None) -> CountedConnection:
        """Count a connection of this peer. Raises RateLimited or Overloaded."""
        return self._open_connections.enter(peer)

    def linger(self) -> bool:
        """Whether a connection that was refused may stay until its peer has read why."""
        return self._open_connections.linger()

    def stop_lingering(self) -> None:
        """Such a connection is closed."""
        self._open_connections.stop_lingering()

    def leave(self, handshake: OpeningHandshake, entry: CountedConnection) -> None:
        """A connection that never became a socket is gone."""
        self._open_connections.leave(entry)
        self._arriving.discard(handshake)

    def begin(self, handshake: OpeningHandshake) -> None:
        """A connection has come, of which nothing is known yet."""
        self._arriving.add(handshake)

    def upgrade(self, handshake: OpeningHandshake, entry: CountedConnection, asked: UpgradeRequest) -> Connection:
        """Return the socket of an upgrade that is accepted. Raises UpgradeRefused."""
        if self._is_draining:
            raise refusal(ShuttingDown())
        if not self._admission.is_welcome(asked.origins, asked.host):
            self._refused_origin.warn(origins=asked.origins, host=asked.host, remedy="name it in ALLOWED_ORIGINS, if it is yours")
            raise UpgradeRefused(
                HTTPStatus.FORBIDDEN, "Pages of this origin may not connect; ALLOWED_ORIGINS names those that may."
            )
        self._arriving.discard(handshake)
        return Connection(self._desk, self._group, self, entry, asked.forwarded)

    def refused(self, peer: str | None, refused: UpgradeRefused) -> None:
        """A peer was refused: what is no HTTP, or one connection too many, is worth a line."""
        if refused.is_noise:
            self._noise.warn(address=peer, problem=refused.text)

    def broken(self, address: str | None, problem: str) -> None:
        """A peer sent a frame that breaks the WebSocket protocol."""
        self._noise.warn(address=address, problem=problem)

    def closed_for(self, connection: Connection, reason: ArtcafeError) -> None:
        """The server closed the connection, for this reason: a line a minute for each kind."""
        if isinstance(reason, ShuttingDown):
            return
        principal = connection.conversation.principal
        who = {} if principal is None else {"tenant": principal.tenant_id, "principal": principal.sender}
        line = self._closed_for.setdefault(reason.code, Repeated("gateway.closed"))
        line.warn(code=reason.code, close=reason.close, address=connection.address, problem=str(reason), **who)

    def admit(self, entry: CountedConnection, peer: str | None, forwarded: list[str]) -> str:
        """The address of a socket that may stay. Raises RateLimited."""
        address = self._admission.admit(peer, forwarded)
        self._open_connections.identify(entry, address)
        return address

    def came(self, connection: Connection) -> None:
        """The upgrade is done."""
        self._waiting[connection] = time.monotonic()

    def proven(self, connection: Connection) -> None:
        """An agent has proven who it is, for the first time or again with a fresh token."""
        if self._waiting.pop(connection, None) is not None:
            self._slots[(self._now_slot - 1) % PING_S].add(connection)
            self.access_updates.enter(connection)
        if connection.conversation.token_until is not None:
            self._with_token.add(connection)

    # --- going -------------------------------------------------------------------------------------------------------

    def stalled(self, connection: Connection, is_stalled: bool) -> None:
        """The peer has stopped taking what it is sent, or goes on."""
        if is_stalled:
            self._stalled[connection] = (time.monotonic(), connection.waiting_bytes())
        else:
            self._stalled.pop(connection, None)

    def closing(self, connection: Connection) -> None:
        """The connection was closed from this side; a peer that does not take that is cut off soon."""
        self._closing[connection] = time.monotonic()

    def gone(self, connection: Connection) -> None:
        """The socket is gone: what its agent acknowledged is written at once."""
        self._gone.set()
        self._open_connections.leave(connection.entry)
        for known in (self._waiting, self._stalled, self._closing):
            known.pop(connection, None)
        for slot in (self._with_token, *self._slots):
            slot.discard(connection)
        principal = connection.conversation.principal
        if principal is None:
            return
        self.access_updates.leave(connection)
        if isinstance(principal, UserPrincipal):
            log.info("person.disconnected", tenant=principal.tenant_id, user=principal.user_id)
            return
        log.info("agent.disconnected", tenant=principal.tenant_id, agent=principal.agent_id)
        if not self._is_draining:
            self._group.create_task(self._desk.cursors.write_agent(principal.tenant_id, principal.agent_id))

    def _end_unproven(self, now: float) -> None:
        for connection, came in list(self._waiting.items()):
            if now - came > self._connect_s:
                self._close(connection, ConnectTimeout())

    def _end_expired(self) -> None:
        now = self._desk.clock()
        for connection in list(self._with_token):
            until = connection.conversation.token_until
            if until is not None and until <= now:
                self._close(connection, CredentialsExpired())

    def _end_stalled(self, now: float) -> None:
        for connection, (since, waiting) in list(self._stalled.items()):
            with self.supervisor.contain():
                waits = connection.waiting_bytes()
                if waits < waiting:
                    self._stalled[connection] = (now, waits)
                elif now - since > self._stall_s:
                    connection.close(SlowConsumer())
                else:
                    self._stalled[connection] = (since, waits)

    def _abort_unwilling(self, now: float) -> None:
        for connection, since in list(self._closing.items()):
            if now - since > DRAIN_S:
                with self.supervisor.contain():
                    connection.abort()

    def _close(self, connection: Connection, reason: ArtcafeError) -> None:
        """Close one of many connections. One that fails must not keep the others open."""
        with self.supervisor.contain(reason=reason.code):
            connection.close(reason)

    def _ping_slot(self) -> None:
        self._now_slot = (self._now_slot + 1) % PING_S
        for connection in list(self._slots[self._now_slot]):
            if connection.is_paused or connection.is_closed:
                continue  # it is judged by the bytes it takes, and a ping would only wait behind them
            if not connection.has_answered:
                self._close(connection, NoPong())
                continue
            with self.supervisor.contain():
                connection.ping()

    def send_back(self, tenant_id: TenantId) -> None:
        """What the tenant's agents are fed by has failed: they are closed so that they come back, and lose nothing."""
        for connection in self.access_updates.of_tenant(tenant_id):
            self._close(connection, Internal())
