"""The gateway's door: upgrades, the sweep over all sockets (deadlines, pings, stalled readers), and closing time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from functools import partial
from http import HTTPStatus
from typing import Final

from picows import WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener, ws_create_server

from artcafe.errors import (
    ArtcafeError,
    ConnectTimeout,
    CredentialsExpired,
    Internal,
    NoPong,
    ShuttingDown,
    SlowConsumer,
)
from artcafe.gateway.admission import Admission
from artcafe.gateway.connection import Connection
from artcafe.gateway.desk import PING_S, Desk
from artcafe.gateway.rechecks import RECHECK_S, Rechecks
from artcafe.model import TenantId, UserPrincipal
from artcafe.observe import log
from artcafe.supervision import Supervisor
from artcafe.wire.frames import MAX_FRAME_BYTES, SUBPROTOCOL

PATH: Final = "/v1/connect"
CONNECT_S: Final = 10.0
STALL_S: Final = 10.0
"""A socket that takes no byte for so long while something waits for it is closed with 4008 (contract, sentence 10)."""
SWEEP_S: Final = 1.0
BACKLOG: Final = 4096
READ_BUFFER_BYTES: Final = 2048
"""An idle socket costs 9.4 KB with it and 23 KB with picows's default (design, decision 6)."""
READABLE_BYTES: Final = 4 * MAX_FRAME_BYTES
"""A frame that is too large is read up to here, so that it can be answered by 4501 and a sentence; above, picows says 1009."""
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
    ) -> None:
        """Without `admission`, every program may connect as often as it likes."""
        self._admission = admission or Admission()
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
        self.rechecks = Rechecks(desk, recheck_s)
        self._is_draining = False
        self._gone = asyncio.Event()
        self._server: asyncio.Server | None = None
        self.supervisor = Supervisor("gateway")

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Opens the door and returns its port. Raises `OSError` when it cannot be had."""
        self._server = await ws_create_server(
            self._upgrade,
            host,
            port,
            websocket_handshake_timeout=CONNECT_S,
            max_frame_size=READABLE_BYTES,
            read_buffer_init_size=READ_BUFFER_BYTES,
            backlog=BACKLOG,
            use_aiofastnet=False,
            enable_auto_pong=False,  # picows would answer pings for ever, whether or not the peer takes the answers
            # With a plain logger picows makes one of its own for each socket, which takes 0.7 KB; an adapter it uses as it is.
            logger_name=logging.LoggerAdapter(logging.getLogger("picows.server")),
            ssl=tls,
        )
        return int(self._server.sockets[0].getsockname()[1])

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
        """Closing time: nobody new, every socket is told to come back, and what they acknowledged is written."""
        self._is_draining = True
        if self._server is not None:
            self._server.close()
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

    def connections(self) -> list[Connection]:
        return [*self._waiting, *(each for slot in self._slots for each in slot)]

    # --- coming ------------------------------------------------------------------------------------------------------

    def _upgrade(self, request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        """Answers an upgrade, or says in plain text what a WebSocket client has to do."""
        path, _, query = request.path.decode("latin-1").partition("?")
        offered = {each.strip() for each in ",".join(request.headers.getall("Sec-WebSocket-Protocol", [])).split(",")}
        if path != PATH:
            return _refuse(HTTPStatus.NOT_FOUND, f"There is nothing at {path}; agents connect at {PATH}.")
        if query:
            return _refuse(HTTPStatus.BAD_REQUEST, "Nothing goes into this URL, credentials least of all: send them in connect.")
        if "Upgrade" not in request.headers:
            return _refuse(HTTPStatus.UPGRADE_REQUIRED, f"This is a WebSocket: connect with the subprotocol {SUBPROTOCOL}.")
        if SUBPROTOCOL not in offered:
            return _refuse(HTTPStatus.BAD_REQUEST, f"Offer the subprotocol: Sec-WebSocket-Protocol: {SUBPROTOCOL}")
        if self._is_draining:
            return _refuse(HTTPStatus.SERVICE_UNAVAILABLE, str(ShuttingDown()))
        if not self._admission.is_welcome(request.headers):
            return _refuse(HTTPStatus.FORBIDDEN, "Pages of this origin may not connect; ALLOWED_ORIGINS names those that may.")
        connection = Connection(self._desk, self._group, self, request.headers.getall("X-Forwarded-For", []))
        accepted = WSUpgradeResponse.create_101_response(extra_headers={"Sec-WebSocket-Protocol": SUBPROTOCOL})
        return WSUpgradeResponseWithListener(accepted, connection)

    def admit(self, peer: str | None, forwarded: list[str]) -> str:
        """The address of a socket that may stay. Raises TooFast."""
        return self._admission.admit(peer, forwarded)

    def came(self, connection: Connection) -> None:
        """The upgrade is done. Only now: picows tells no listener of an upgrade that it refused itself, for want of a key."""
        self._waiting[connection] = time.monotonic()

    def proven(self, connection: Connection) -> None:
        """An agent has proven who it is, for the first time or again with a fresh token."""
        if self._waiting.pop(connection, None) is not None:
            self._slots[(self._now_slot - 1) % PING_S].add(connection)
            self.rechecks.enter(connection)
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
        for known in (self._waiting, self._stalled, self._closing):
            known.pop(connection, None)
        for slot in (self._with_token, *self._slots):
            slot.discard(connection)
        principal = connection.conversation.principal
        if principal is None:
            return
        self.rechecks.leave(connection)
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
        for connection in self.rechecks.of_tenant(tenant_id):
            self._close(connection, Internal())


def _refuse(status: HTTPStatus, text: str) -> WSUpgradeResponseWithListener:
    headers = {
        "Content-Type": "text/plain; charset=utf-8",
        "Cache-Control": "no-store",
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
    }
    if status is HTTPStatus.UPGRADE_REQUIRED:
        headers["Upgrade"] = "websocket"  # RFC 9110, section 15.5.22
    response = WSUpgradeResponse.create_error_response(status, (text + "\n").encode(), headers)
    return WSUpgradeResponseWithListener(response, None)
