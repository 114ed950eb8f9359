"""The WebSocket gateway: accepting upgrades, sweeping over all sockets (deadlines, pings, stalled readers), and draining."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from functools import partial
from http import HTTPStatus
from typing import Final

from artcafe.assembly import Services
from artcafe.delivery.peer import PING_S
from artcafe.errors import (
    ArtcafeError,
    ConnectTimeout,
    CredentialsExpired,
    Internal,
    NoPong,
    ShuttingDown,
    SlowConsumer,
)
from artcafe.gateway.access_updates import APPLY_INTERVAL_S, AccessUpdates
from artcafe.gateway.admission import Admission
from artcafe.gateway.connection import Connection
from artcafe.gateway.opening_handshake import OpeningHandshake
from artcafe.gateway.upgrade_request import UpgradeRefused, UpgradeRequest, refusal
from artcafe.gateway.user_session import UserSession
from artcafe.model import TenantId
from artcafe.observe import metrics
from artcafe.observe.logs import ThrottledEvent, log
from artcafe.rules.open_connections import CountedConnection, OpenConnections
from artcafe.supervision import Supervisor

CONNECT_S: Final = 10.0
"""Deadline of a successful `connect`."""
STALL_S: Final = 10.0
"""Longest time without a read by a peer while bytes wait for it. Above, it is closed with 4008 (contract, sentence 10)."""
SWEEP_S: Final = 1.0
BACKLOG: Final = 4096
"""Connections held by the kernel until they are accepted."""
ANSWER_S: Final = 1.0
"""Longest wait of a drain for replies to publishes, and again for the writes of cursors."""
ANSWER_LOOK_S: Final = 0.02
DRAIN_S: Final = 2.0
"""Longest wait for the reply to a close frame before the socket is aborted."""


class Gateway:
    """Every socket of this server. `group` owns their tasks."""

    def __init__(
        self,
        services: Services,
        group: asyncio.TaskGroup,
        *,
        sweep_s: float = SWEEP_S,
        connect_s: float = CONNECT_S,
        stall_s: float = STALL_S,
        apply_interval_s: float = APPLY_INTERVAL_S,
        admission: Admission | None = None,
        connections: OpenConnections | None = None,
    ) -> None:
        """Without `admission`, no origin or rate is refused; without `connections`, any number of sockets may be open."""
        self._admission = admission or Admission()
        self._open_connections = connections or OpenConnections()
        self._handshakes: set[OpeningHandshake] = set()
        self._refused_origin, self._noise = ThrottledEvent("gateway.origin_refused"), ThrottledEvent("gateway.not_websocket")
        self._errors: dict[str, ThrottledEvent] = {}
        self._services, self._group = services, group
        self._sweep_s, self._connect_s, self._stall_s = sweep_s, connect_s, stall_s
        self._unauthenticated: dict[Connection, float] = {}
        """Sockets without a successful `connect`, and when they opened."""
        self._slots: list[set[Connection]] = [set() for _ in range(PING_S)]
        """Authenticated sockets by the second of their ping, of `PING_S`: a sweep visits one slot, not all sockets."""
        self._current_slot = 0
        self._with_expiry: set[Connection] = set()
        self._slow_readers: dict[Connection, tuple[float, int]] = {}
        """Sockets with a peer that is not reading: the time of its last read, and the number of bytes waiting then."""
        self._closing: dict[Connection, float] = {}
        self.access_updates = AccessUpdates(services, apply_interval_s)
        services.invalidation.subscribe(self.access_updates.on_change)
        services.version_watch.add_served(self.access_updates.tenants)
        services.requests.held.set_receivers(self.access_updates.receivers)
        services.recipients.set_sockets(self.access_updates.positions)
        services.fabric.on_tenant_failure(self.close_tenant)
        self._is_draining = False
        self._closed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self.supervisor = Supervisor("gateway")

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Listen, and return the port. Raises `OSError` if the address cannot be used."""
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
        """Serve a connection accepted by another process. Raises OSError if it has ended, or if its TLS handshake failed."""
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: OpeningHandshake(self, CONNECT_S),
            connection,
            ssl=tls,
            ssl_handshake_timeout=None if tls is None else CONNECT_S,
        )

    async def run(self) -> None:
        """Sweep over the sockets every `sweep_s` seconds, until cancelled."""
        while True:
            await asyncio.sleep(self._sweep_s)
            self._sweep(time.monotonic())

    def _sweep(self, now: float) -> None:
        steps = (
            partial(self._close_unauthenticated, now),
            self._close_expired,
            partial(self._close_stalled, now),
            partial(self._abort_unanswered, now),
            self._ping_slot,
        )
        for step in steps:
            with self.supervisor.contain():
                step()

    async def drain(self) -> None:
        """Close every socket with 4000: accept no new one, answer publishes and requests in flight, and write acknowledged
        cursors."""
        self._is_draining = True
        if self._server is not None:
            self._server.close()
        for handshake in list(self._handshakes):
            handshake.abort()
        self._services.requests.stop_taking()
        await self._answer_all()
        self._services.requests.end_all()
        for connection in self.connections():
            self._close(connection, ShuttingDown())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                while self._unauthenticated or any(self._slots):
                    self._closed.clear()
                    await self._closed.wait()
        for connection in self.connections():
            connection.abort()
        await self._services.cursors.write_all()

    async def _answer_all(self) -> None:
        """Wait for the replies to publishes and requests, and for the writes of cursors, at most `ANSWER_S` each."""
        for connection in self.connections():
            connection.dispatcher.wind_down()
        for _ in range(round(ANSWER_S / ANSWER_LOOK_S)):
            if not any(connection.dispatcher.is_busy for connection in self.connections()):
                break
            await asyncio.sleep(ANSWER_LOOK_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                await self._services.cursors.write_all()

    @property
    def unauthenticated(self) -> int:
        """The number of sockets without a successful `connect`."""
        return len(self._unauthenticated)

    def connections(self) -> list[Connection]:
        """Return every open socket."""
        return [*self._unauthenticated, *(each for slot in self._slots for each in slot)]

    # --- events of handshakes and connections ------------------------------------------------------------------------

    def count_connection(self, peer: str | None) -> CountedConnection:
        """Count a connection from this address. Raises RateLimited or Overloaded."""
        return self._open_connections.enter(peer)

    def try_linger(self) -> bool:
        """Return whether a refused connection may stay open until its peer has read the refusal."""
        return self._open_connections.try_linger()

    def stop_lingering(self) -> None:
        """Count a lingering connection less."""
        self._open_connections.stop_lingering()

    def on_begin(self, handshake: OpeningHandshake) -> None:
        """Keep the handshake, to be aborted by a drain."""
        self._handshakes.add(handshake)

    def on_abandoned(self, handshake: OpeningHandshake, counted: CountedConnection) -> None:
        """Forget a connection closed before its upgrade."""
        self._open_connections.leave(counted)
        self._handshakes.discard(handshake)

    def accept(self, handshake: OpeningHandshake, counted: CountedConnection, request: UpgradeRequest) -> Connection:
        """Return the connection of an accepted upgrade. Raises UpgradeRefused."""
        if self._is_draining:
            raise refusal(ShuttingDown())
        if not self._admission.origins.is_allowed(request.origins, request.host):
            self._refused_origin.warn(
                origins=request.origins, host=request.host, remedy="name it in ALLOWED_ORIGINS, if it is yours"
            )
            text = "Pages of this origin may not connect; ALLOWED_ORIGINS names those that may."
            raise UpgradeRefused(HTTPStatus.FORBIDDEN, text)
        self._handshakes.discard(handshake)
        return Connection(self._services, self._group, self, counted, request.forwarded)

    def on_refused(self, peer: str | None, refused: UpgradeRefused) -> None:
        """Log the refusal of a peer without HTTP or with too many connections, at most once a minute."""
        if refused.is_noise:
            self._noise.warn(address=peer, problem=refused.text)

    def on_protocol_error(self, address: str | None, problem: str) -> None:
        """Log a violation of the WebSocket protocol, at most once a minute."""
        self._noise.warn(address=address, problem=problem)

    def on_error(self, connection: Connection, reason: ArtcafeError) -> None:
        """Count why the server closes a connection, and log it at most once a minute for each error code."""
        if isinstance(reason, ShuttingDown):
            return
        metrics.count_error(reason)
        session = connection.session
        who = {} if session is None else {"tenant": session.principal.tenant_id, "principal": session.principal.sender}
        line = self._errors.setdefault(reason.code, ThrottledEvent("gateway.closed"))
        line.warn(code=reason.code, close=reason.close, address=connection.address, problem=str(reason), **who)

    def admit(self, counted: CountedConnection, peer: str | None, forwarded: list[str]) -> str:
        """Return the client's address behind trusted proxies, if the connection may stay. Raises RateLimited."""
        address = self._admission.admit(peer, forwarded)
        self._open_connections.identify(counted, address)
        return address

    def on_open(self, connection: Connection) -> None:
        """Start the deadline of `connect`."""
        self._unauthenticated[connection] = time.monotonic()

    def on_authenticated(self, connection: Connection) -> None:
        """Ping the socket and apply changes to its session from here on, and watch the expiry of its latest token."""
        session = connection.session
        assert session is not None
        if self._unauthenticated.pop(connection, None) is not None:
            self._slots[(self._current_slot - 1) % PING_S].add(connection)
            self.access_updates.enter(session)
        if session.token_until is not None:
            self._with_expiry.add(connection)

    def on_paused(self, connection: Connection, is_paused: bool) -> None:
        """Start or end the deadline of a slow reader."""
        if is_paused:
            self._slow_readers[connection] = (time.monotonic(), connection.waiting_bytes())
        else:
            self._slow_readers.pop(connection, None)

    def on_closing(self, connection: Connection) -> None:
        """Start the deadline of the reply to a close frame."""
        self._closing[connection] = time.monotonic()

    def on_close(self, connection: Connection) -> None:
        """Forget the socket, and write its agent's acknowledged cursors."""
        self._closed.set()
        self._open_connections.leave(connection.counted)
        for known in (self._unauthenticated, self._slow_readers, self._closing):
            known.pop(connection, None)
        for slot in (self._with_expiry, *self._slots):
            slot.discard(connection)
        session = connection.session
        if session is None:
            return
        self.access_updates.leave(session)
        if isinstance(session, UserSession):
            log.info("person.disconnected", tenant=session.principal.tenant_id, user=session.principal.user_id)
            return
        log.info("agent.disconnected", tenant=session.principal.tenant_id, agent=session.principal.agent_id)
        if not self._is_draining:
            self._group.create_task(session.write_cursors())

    # --- the sweep ---------------------------------------------------------------------------------------------------

    def _close_unauthenticated(self, now: float) -> None:
        for connection, opened in list(self._unauthenticated.items()):
            if now - opened > self._connect_s:
                self._close(connection, ConnectTimeout())

    def _close_expired(self) -> None:
        now = self._services.clock()
        for connection in list(self._with_expiry):
            until = None if connection.session is None else connection.session.token_until
            if until is not None and until <= now:
                self._close(connection, CredentialsExpired())

    def _close_stalled(self, now: float) -> None:
        for connection, (since, waiting) in list(self._slow_readers.items()):
            with self.supervisor.contain():
                waits = connection.waiting_bytes()
                if waits < waiting:
                    self._slow_readers[connection] = (now, waits)
                elif now - since > self._stall_s:
                    connection.close(SlowConsumer())
                else:
                    self._slow_readers[connection] = (since, waits)

    def _abort_unanswered(self, now: float) -> None:
        for connection, since in list(self._closing.items()):
            if now - since > DRAIN_S:
                with self.supervisor.contain():
                    connection.abort()

    def _close(self, connection: Connection, reason: ArtcafeError) -> None:
        """Close one of many connections. An error while closing it must not keep the others open."""
        with self.supervisor.contain(reason=reason.code):
            connection.close(reason)

    def _ping_slot(self) -> None:
        self._current_slot = (self._current_slot + 1) % PING_S
        for connection in list(self._slots[self._current_slot]):
            if connection.is_paused or connection.is_closed:
                continue  # `_close_stalled` checks its reads; a ping would only wait in the buffer
            if not connection.has_answered:
                self._close(connection, NoPong())
                continue
            with self.supervisor.contain():
                connection.ping()

    def close_tenant(self, tenant_id: TenantId) -> None:
        """Close a tenant's connections because a reader of its messages has failed: the agents connect again and lose nothing."""
        for session in self.access_updates.of_tenant(tenant_id):
            with self.supervisor.contain(reason=Internal.code):
                session.close(Internal())
