"""Acks of pulled queue messages, passed on to the server that pulled them: only it knows whether they are still held."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from nats.aio.msg import Msg

from artcafe.errors import OurFault
from artcafe.fabric.nats.client import OutgoingMessage
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.observe.logs import log
from artcafe.rules import subjects
from artcafe.rules.subjects import Subject
from artcafe.supervision import Supervisor

ANSWER_S: Final = 2.0
RETRY_S: Final = 0.2

Settle = Callable[[bytes], Awaitable[bytes]]


class HoldRequests:
    """The requests of this server to the others, and its answers to theirs. The bodies are those of `delivery.pull_holds`."""

    def __init__(self, connection: NatsConnection, server: str) -> None:
        """`connection` is in the platform's account; `server` is this server's unique name."""
        self._connection, self.server = connection, server
        self._settle: Settle | None = None
        self.is_listening = False
        """Whether the other servers reach this one."""
        self.supervisor = Supervisor("hold_requests")

    def answer_by(self, settle: Settle) -> None:
        """Answer the others by `settle`."""
        self._settle = settle

    async def run(self) -> None:
        """Listen to the other servers, over this connection and later ones. Retry until it succeeds."""
        while not self.is_listening:
            try:
                await self._connection.wait_up()
                await self._connection.subscribe(subjects.holds(self.server), self._on_request)
                self.is_listening = True
            except OurFault as exc:
                log.debug("hold_requests.disconnected", error=repr(exc))
                await asyncio.sleep(RETRY_S)

    async def ask(self, server: str, body: bytes) -> bytes:
        """Return the answer of another server.

        Raise `NoResponder` if that server has ended, `Unavailable` if it was not asked, and `NatsConnectionLost` or
        `TimeoutError` if that is unknown.
        """
        return (await self._connection.request(subjects.holds(server), body, timeout_s=ANSWER_S)).data

    async def _on_request(self, msg: Msg) -> None:
        with self.supervisor.contain():
            if self._settle is None or not msg.reply:
                return
            answer = await self._settle(msg.data)
            try:
                await self._connection.send(OutgoingMessage(Subject(msg.reply), "", answer))
            except OurFault as exc:
                log.debug("hold_requests.not_answered", error=repr(exc))
