"""Changes announced from server to server at once, over the platform's account (design, decision 12).

Announcements are sent at most once. Each server numbers its changes and repeats its number every second, so that the others
detect a possible loss: a gap in the numbers, a silent server, a lost connection. They read the tables then
(`services.version_watch`, decision record 30).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec
from nats.aio.msg import Msg

from artcafe.errors import NatsConnectionLost, OurFault
from artcafe.fabric.nats.client import IncomingMessage, OutgoingMessage
from artcafe.fabric.nats.connection import REPLY_TIMEOUT_S, NatsConnection, unreachable
from artcafe.model import TenantChange, TenantId
from artcafe.observe.logs import log
from artcafe.rules.subjects import CHANGES
from artcafe.supervision import Supervisor

RETRY_S: Final = 0.2
PORTION: Final = 300
"""Changes in one message: at most some 300 KB. NATS accepts 1 MiB."""
HEARTBEAT_S: Final = 1.0
"""How often a server repeats its number."""
SILENT_S: Final = 2.5
"""A server not heard for this long may be cut off, and its announcements lost. This and the read afterwards stay within the
contract's 5 s (sentence 12)."""
FORGOTTEN_S: Final = 600.0
"""A server not heard for this long has ended."""


class Announcement(msgspec.Struct, frozen=True, array_like=True):
    """A server's message about its changes. A server receives its own messages too, and ignores them.

    `number` counts the server's changes, of which `changes` are the last ones; without any, the message is a heartbeat. `number`
    is 0 for a sender that announces once and is not a server. `is_last`: the server has ended.
    """

    server: str
    number: int
    changes: list[TenantChange]
    is_last: bool = False


@dataclass(slots=True)
class PeerServer:
    """Another server: its number, and when it was last heard."""

    number: int
    heard_at: float
    is_silent: bool = False


class Heard(NamedTuple):
    """When another server was last heard, and whether that is too long ago for a server that runs."""

    heard_s: float
    is_silent: bool


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Announcement)


class Announcements:
    """This server's announcements to the others, and theirs to it."""

    def __init__(
        self, connection: NatsConnection, server: str, *, heartbeat_s: float = HEARTBEAT_S, silent_s: float = SILENT_S
    ) -> None:
        """`connection` is in the platform's account; `server` is this server's unique name."""
        self._connection, self._server, self._heartbeat_s, self._silent_s = connection, server, heartbeat_s, silent_s
        self._queued: list[TenantChange] = []
        self._number = 0
        self._due = asyncio.Event()
        self._listeners: list[Callable[[TenantChange], None]] = []
        self._peers: dict[str, PeerServer] = {}
        self.supervisor = Supervisor("announcements")
        self._is_listening = False
        self.losses = 0
        """How often announcements of peer servers may have been lost so far."""
        connection.on_up(self._lost)

    def __len__(self) -> int:
        """Return the number of changes still to be announcement."""
        return len(self._queued)

    @property
    def is_complete(self) -> bool:
        """Whether all announcements of the peer servers arrive now, as far as is known."""
        return self.is_listening and not any(peer.is_silent for peer in self._peers.values())

    @property
    def has_peers(self) -> bool:
        """Whether another server was heard in the last `FORGOTTEN_S`, and has not announced its end."""
        return bool(self._peers)

    @property
    def reconnected_at(self) -> float | None:
        """When this server last connected to NATS again, by the monotonic clock: now while it is not connected. None if it never
        lost NATS."""
        return self._connection.reconnected_at if self._connection.is_up else time.monotonic()

    def peers(self) -> set[str]:
        """Return the names of the other servers that run, as far as is known: each was heard in the last moments."""
        return {name for name, peer in self._peers.items() if not peer.is_silent}

    def heard(self) -> dict[str, Heard]:
        """Return the other servers that were heard in the last `FORGOTTEN_S` and did not end, by name."""
        now = time.monotonic()
        return {name: Heard(now - peer.heard_at, peer.is_silent) for name, peer in self._peers.items()}

    @property
    def is_listening(self) -> bool:
        """Whether the announcements of other servers can arrive now."""
        return self._is_listening and self._connection.is_up

    def listen(self, callback: Callable[[TenantChange], None]) -> None:
        """Call `callback` with every change announced by another server."""
        self._listeners.append(callback)

    def announce(self, change: TenantChange) -> None:
        """Queue the announcement of a change made on this server."""
        self._queued.append(change)
        self._due.set()

    async def announce_now(self, tenant_id: TenantId) -> None:
        """Announce a possible change of anything in the tenant; return after NATS has received it. Raise `Unavailable`.

        For a command, which is not a server and has no number.
        """
        await self._send_now(Announcement(self._server, 0, [TenantChange(tenant_id=tenant_id, is_whole=True)]))

    async def announce_end(self) -> None:
        """Announce the end of this server, to stop others from waiting for its heartbeat. Raise `Unavailable`."""
        await self._send_now(Announcement(self._server, self._number, [], is_last=True))

    async def _send_now(self, announcement: Announcement) -> None:
        await self._connection.wait_up(REPLY_TIMEOUT_S)
        try:
            await self._connection.send(OutgoingMessage(CHANGES, "", _encode(announcement)))
        except NatsConnectionLost as exc:
            raise unreachable() from exc
        await self._connection.check(REPLY_TIMEOUT_S)

    async def run(self) -> None:
        """Listen and announce until cancelled, over the current and later connections."""
        await self._listen()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._heartbeat_s):
                    await self._due.wait()
            self._due.clear()
            with self.supervisor.contain():
                await self._send_queued()
            self._mark_silent(time.monotonic())

    async def _listen(self) -> None:
        """Subscribe to the peer servers' announcements. Retry until it succeeds."""
        while True:
            try:
                await self._connection.wait_up()
                await self._connection.subscribe(CHANGES, self._on_announced, self._take)
            except OurFault as exc:
                log.debug("announcements.disconnected", error=repr(exc))
                await asyncio.sleep(RETRY_S)
            else:
                self._is_listening = True
                self._lost()
                return

    async def _send_queued(self) -> None:
        """Send the queued changes, or a heartbeat. A command has no listeners, and sends no heartbeat."""
        queued, self._queued = self._queued, []
        portions = [queued[start : start + PORTION] for start in range(0, len(queued), PORTION)]
        if self._listeners and not portions:
            portions = [[]]
        try:
            for portion in portions:
                # The number rises even if sending fails: the others detect the gap then.
                self._number += len(portion)
                await self._connection.send(
                    OutgoingMessage(CHANGES, "", _encode(Announcement(self._server, self._number, portion)))
                )
        except OurFault as exc:  # the others detect the gap and read the tables
            log.debug("announcements.dropped", error=repr(exc), changes=len(queued))

    # --- announcements of other servers ---

    def _lost(self) -> None:
        """Note a possible loss of announcements."""
        self.losses += 1

    def _mark_silent(self, now: float) -> None:
        for name, peer in list(self._peers.items()):
            if now - peer.heard_at > FORGOTTEN_S:
                del self._peers[name]
            elif not peer.is_silent and now - peer.heard_at > self._silent_s:
                log.info("announcements.server_silent", server=name)
                peer.is_silent = True
                self._lost()

    async def _on_announced(self, msg: Msg) -> None:
        self._take(IncomingMessage(msg.data, None))

    def _take(self, incoming: IncomingMessage) -> bool:
        try:
            announcement = _decoder.decode(incoming.data)
        except msgspec.DecodeError as exc:
            log.warning("announcements.unreadable", error=str(exc))
            return True
        if announcement.server != self._server:
            self._follow(announcement)
            for change in announcement.changes:
                for callback in self._listeners:
                    with self.supervisor.contain(tenant=change.tenant_id):
                        callback(change)
        return True

    def _follow(self, announcement: Announcement) -> None:
        """Note a loss unless this announcement follows the server's last one."""
        if announcement.number == 0 and announcement.changes:
            return
        peer = self._peers.pop(announcement.server, None)
        if announcement.number - len(announcement.changes) != (0 if peer is None else peer.number):
            self._lost()
        if not announcement.is_last:
            self._peers[announcement.server] = PeerServer(announcement.number, time.monotonic())
