"""Which tenants have changed, told by each server to the others at once; the tables are the truth, and this only makes it fast.

It goes over the platform's own account (design, decision 12), at most once: nothing is stored, and what could not be told now is
dropped. Every server reads the versions of the tenants it serves every few seconds besides (`services.changes`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec
from nats.aio.msg import Msg

from artcafe.errors import LinkLost, OurFault
from artcafe.fabric.client import Incoming, Outgoing
from artcafe.fabric.link import REPLY_TIMEOUT_S, Link, unreachable
from artcafe.model import TenantId
from artcafe.observe import log
from artcafe.rules.subjects import CHANGES
from artcafe.supervision import Supervisor

RETRY_S: Final = 0.2
PORTION: Final = 500
"""Tenants in one message: at most 65 KB, and NATS takes 1 MiB."""


class Announced(msgspec.Struct, frozen=True, array_like=True):
    """What a server says has changed. It hears itself too, and passes over that."""

    server: str
    tenants: list[TenantId]


_encode = msgspec.json.Encoder().encode
_announced = msgspec.json.Decoder(Announced)


class Announcements:
    """What this server tells the others, and hears from them."""

    def __init__(self, link: Link, server: str) -> None:
        """`link` is into the platform's account; `server` is this server's name, as no other has it."""
        self._link, self._server = link, server
        self._untold: dict[TenantId, None] = {}
        """In the order in which they changed; a tenant that changes again before it is told is told once."""
        self._due = asyncio.Event()
        self._listeners: list[Callable[[TenantId], None]] = []
        self.supervisor = Supervisor("announcements")

    def __len__(self) -> int:
        """How many tenants are still to be told."""
        return len(self._untold)

    def listen(self, callback: Callable[[TenantId], None]) -> None:
        """Have `callback` called with every tenant that another server says has changed."""
        self._listeners.append(callback)

    def tell(self, tenant_id: TenantId) -> None:
        """Something in the tenant has changed here; may be said too often. Waits for nothing."""
        self._untold[tenant_id] = None
        self._due.set()

    async def tell_now(self, tenant_id: TenantId) -> None:
        """As `tell`, and returns when NATS has it. Raises `Unavailable`."""
        await self._link.wait_up()
        try:
            await self._link.send(Outgoing(CHANGES, "", _encode(Announced(self._server, [tenant_id]))))
        except LinkLost as exc:
            raise unreachable() from exc
        await self._link.check(REPLY_TIMEOUT_S)

    async def run(self) -> None:
        """Listens and tells until cancelled, over whichever connections there are."""
        await self._listen()
        while True:
            await self._due.wait()
            self._due.clear()
            with self.supervisor.contain():
                await self._tell_all()

    async def _listen(self) -> None:
        """Returns when this server hears the others."""
        while True:
            try:
                await self._link.wait_up()
                await self._link.subscribe(CHANGES, self._on_announced, self._take)
                return
            except OurFault as exc:
                log.debug("announcements.apart", error=repr(exc))
                await asyncio.sleep(RETRY_S)

    async def _tell_all(self) -> None:
        untold, self._untold = list(self._untold), {}
        try:
            for start in range(0, len(untold), PORTION):
                body = _encode(Announced(self._server, untold[start : start + PORTION]))
                await self._link.send(Outgoing(CHANGES, "", body))
        except OurFault as exc:  # before it could be told again, the others will have read it
            log.debug("announcements.dropped", error=repr(exc), tenants=len(untold))

    async def _on_announced(self, msg: Msg) -> None:
        self._take(Incoming(msg.data, None))

    def _take(self, incoming: Incoming) -> bool:
        try:
            announced = _announced.decode(incoming.data)
        except msgspec.DecodeError as exc:
            log.warning("announcements.not_understood", error=str(exc))
            return True
        if announced.server != self._server:
            for tenant_id in announced.tenants:
                for callback in self._listeners:
                    with self.supervisor.contain(tenant=tenant_id):
                        callback(tenant_id)
        return True
