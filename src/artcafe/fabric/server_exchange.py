"""Questions between the servers of a fleet about one tenant. Nothing is stored, and an answer may be lost."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Final

from nats.aio.msg import Msg

from artcafe.errors import OurFault
from artcafe.fabric.nats.client import OutgoingMessage
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.observe.logs import log
from artcafe.rules.subjects import Subject
from artcafe.supervision import Supervisor

ANSWER_S: Final = 0.5
"""Longest wait for another server. What one without an answer by then knows is unknown."""
RETRY_S: Final = 0.2


class ServerExchange(ABC):
    """One tenant's questions to the other servers, and this server's answers once it has something to answer."""

    def __init__(self, connection: NatsConnection, server: str, name: str, subject: Subject) -> None:
        """`server`: this server's unique name. `name`: the name in logs and metrics. `subject`: of questions to this one."""
        self._connection, self._server, self._name, self._subject = connection, server, name, subject
        self._wanted = asyncio.Event()
        self.supervisor = Supervisor(name)

    def answer_others(self) -> None:
        """Answer from now on, because this server has something to answer. May be repeated."""
        self._wanted.set()

    async def run(self) -> None:
        """Subscribe to questions, over this connection and later ones. Retry until it succeeds."""
        await self._wanted.wait()
        while True:
            try:
                await self._connection.wait_up()
                await self._connection.subscribe(self._subject, self._on_question)
            except OurFault as exc:
                log.debug("server_exchange.disconnected", exchange=self._name, error=repr(exc))
                await asyncio.sleep(RETRY_S)
            else:
                return

    @abstractmethod
    def _answer(self, question: bytes) -> bytes | None:
        """Return the answer to a question, or None for no answer."""

    async def _on_question(self, msg: Msg) -> None:
        with self.supervisor.contain():
            answer = self._answer(msg.data)
            if answer is None:
                return
            try:
                await self._connection.send(OutgoingMessage(Subject(msg.reply), "", answer))
            except OurFault as exc:  # The other server stops waiting.
                log.debug("server_exchange.not_answered", exchange=self._name, error=repr(exc))
