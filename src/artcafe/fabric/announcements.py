"""Changes announced from server to server at once, over the platform's own account of NATS (design, decision 12).

They are sent at most once. Each server numbers what it sends and repeats its number every second, so that the others know when
they may have missed something: a number that does not follow, a server that falls silent, a connection that was down. Then they
read the tables (`services.version_watch`, decision 30).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

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
"""Changes in one message: at most some 300 KB, and NATS takes 1 MiB."""
BEAT_S: Final = 1.0
"""How often a server repeats its number."""
SILENT_S: Final = 2.5
"""A server that was not heard for so long may be cut off, and announce what does not arrive. With the read that follows this
stays within the contract's 5 s (sentence 12)."""
FORGOTTEN_S: Final = 600.0
"""A server that was not heard for so long has died."""


class Announcement(msgspec.Struct, frozen=True, array_like=True):
    """What a server has changed. It hears itself too, and passes over that.

    `number` is 0 for a sender that announces once and is no server, and else counts its announcements, of which `changes` are the
    last ones; without any it is a heartbeat. `is_last` says that the server has ended.
    """

    server: str
    number: int
    changes: list[TenantChange]
    is_last: bool = False


@dataclass(slots=True)
class Other:
    """Another server: its number, and when it was heard last."""

    number: int
    heard_at: float
    is_silent: bool = False


_encode = msgspec.json.Encoder().encode
_announced = msgspec.json.Decoder(Announcement)


class Announcements:
    """What this server announces to the others, and hears from them."""

    def __init__(self, connection: NatsConnection, server: str, *, beat_s: float = BEAT_S, silent_s: float = SILENT_S) -> None:
        """`connection` is into the platform's account; `server` is this server's name, as no other has it."""
        self._connection, self._server, self._beat_s, self._silent_s = connection, server, beat_s, silent_s
        self._untold: list[TenantChange] = []
        self._number = 0
        self._due = asyncio.Event()
        self._listeners: list[Callable[[TenantChange], None]] = []
        self._others: dict[str, Other] = {}
        self.supervisor = Supervisor("announcements")
        self._is_listening = False
        self.losses = 0
        """How often announcements of others may have been lost so far."""
        connection.on_up(self._lost)

    def __len__(self) -> int:
        """Return how many changes are still to be announced."""
        return len(self._untold)

    @property
    def is_complete(self) -> bool:
        """Whether everything that the other servers announce arrives now, as far as can be known."""
        return self._is_listening and self._connection.is_up and not any(other.is_silent for other in self._others.values())

    def listen(self, callback: Callable[[TenantChange], None]) -> None:
        """Have `callback` called with every change that another server announces."""
        self._listeners.append(callback)

    def announce(self, change: TenantChange) -> None:
        """Announce a change that was made here. Waits for nothing."""
        self._untold.append(change)
        self._due.set()

    async def announce_now(self, tenant_id: TenantId) -> None:
        """Announce that anything in the tenant may have changed, and return when NATS has it. Raises `Unavailable`.

        For a command, which is no server: it has no number.
        """
        await self._send_now(Announcement(self._server, 0, [TenantChange(tenant_id=tenant_id, is_whole=True)]))

    async def announce_end(self) -> None:
        """Tell the other servers that this one ends, so that nobody waits for its heartbeat. Raises `Unavailable`."""
        await self._send_now(Announcement(self._server, self._number, [], is_last=True))

    async def _send_now(self, announced: Announcement) -> None:
        await self._connection.wait_up(REPLY_TIMEOUT_S)
        try:
            await self._connection.send(OutgoingMessage(CHANGES, "", _encode(announced)))
        except NatsConnectionLost as exc:
            raise unreachable() from exc
        await self._connection.check(REPLY_TIMEOUT_S)

    async def run(self) -> None:
        """Listen and announce until cancelled, over whichever connections there are."""
        await self._listen()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._beat_s):
                    await self._due.wait()
            self._due.clear()
            with self.supervisor.contain():
                await self._tell_all()
            self._look_for_silent(time.monotonic())

    async def _listen(self) -> None:
        """Return when this server hears the others."""
        while True:
            try:
                await self._connection.wait_up()
                await self._connection.subscribe(CHANGES, self._on_announced, self._take)
            except OurFault as exc:
                log.debug("announcements.apart", error=repr(exc))
                await asyncio.sleep(RETRY_S)
            else:
                self._is_listening = True
                self._lost()
                return

    async def _tell_all(self) -> None:
        """Announce what is due, or that nothing is. A command, which listens to nobody, sends no heartbeat."""
        untold, self._untold = self._untold, []
        portions = [untold[start : start + PORTION] for start in range(0, len(untold), PORTION)]
        if self._listeners and not portions:
            portions = [[]]
        try:
            for portion in portions:
                # A number counts also where sending fails: then the others find that it is missing.
                self._number += len(portion)
                await self._connection.send(
                    OutgoingMessage(CHANGES, "", _encode(Announcement(self._server, self._number, portion)))
                )
        except OurFault as exc:  # the others read it in the tables
            log.debug("announcements.dropped", error=repr(exc), changes=len(untold))

    # --- what the others announce ---

    def _lost(self) -> None:
        """Announcements may have been lost."""
        self.losses += 1

    def _look_for_silent(self, now: float) -> None:
        for name, other in list(self._others.items()):
            if now - other.heard_at > FORGOTTEN_S:
                del self._others[name]
            elif not other.is_silent and now - other.heard_at > self._silent_s:
                log.info("announcements.server_silent", server=name)
                other.is_silent = True
                self._lost()

    async def _on_announced(self, msg: Msg) -> None:
        self._take(IncomingMessage(msg.data, None))

    def _take(self, incoming: IncomingMessage) -> bool:
        try:
            announced = _announced.decode(incoming.data)
        except msgspec.DecodeError as exc:
            log.warning("announcements.not_understood", error=str(exc))
            return True
        if announced.server != self._server:
            self._follow(announced)
            for change in announced.changes:
                for callback in self._listeners:
                    with self.supervisor.contain(tenant=change.tenant_id):
                        callback(change)
        return True

    def _follow(self, announced: Announcement) -> None:
        """Note a loss unless this follows the last announcement of that server."""
        if announced.number == 0 and announced.changes:
            return
        other = self._others.pop(announced.server, None)
        if announced.number - len(announced.changes) != (0 if other is None else other.number):
            self._lost()
        if not announced.is_last:
            self._others[announced.server] = Other(announced.number, time.monotonic())
