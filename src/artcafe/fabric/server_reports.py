"""Reports of the servers of a fleet about themselves, asked for when an operator looks. Nothing is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Final, NamedTuple

import msgspec
from nats.aio.msg import Msg

from artcafe.errors import OurFault
from artcafe.fabric.announcements import Announcements
from artcafe.fabric.nats.client import IncomingMessage, OutgoingMessage
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.observe.logs import log
from artcafe.rules.subjects import SERVERS_ASK, Subject
from artcafe.supervision import Supervisor

ANSWER_S: Final = 0.5
"""Longest wait for the other servers. What one without an answer by then would report is unknown."""
RETRY_S: Final = 0.2


class ServerReport(msgspec.Struct, frozen=True):
    """What a server process says about itself. A later version may add fields, and an earlier one lacks some: those are None."""

    server: str
    """Its name among the others."""
    host: str | None = None
    version: str | None = None
    process: int | None = None
    """Its number in the group of processes behind the same listeners, from 1 on."""
    processes: int | None = None
    """The size of that group."""
    started_at: datetime | None = None
    connections: int | None = None
    """Open connections to both listeners."""
    sessions: int | None = None
    """Authenticated sockets and streams of agents and people."""


class KnownServer(NamedTuple):
    """A server that was heard, and its report; None without an answer, as of an earlier version."""

    server: str
    heard_s: float
    """Seconds since it was last heard."""
    is_silent: bool
    """Whether it was not heard for so long that it has ended, or is cut off."""
    report: ServerReport | None


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(ServerReport)


class ServerReports:
    """This server's report to the others, and theirs to it."""

    def __init__(
        self, connection: NatsConnection, server: str, announcements: Announcements, *, answer_s: float = ANSWER_S
    ) -> None:
        """`connection` is in the platform's account; `server` is this server's unique name."""
        self._connection, self.server, self._announcements, self._answer_s = connection, server, announcements, answer_s
        self._report: Callable[[], ServerReport] = lambda: ServerReport(server)
        self.supervisor = Supervisor("server_reports")

    def set_report(self, report: Callable[[], ServerReport]) -> None:
        """Answer the others by `report`."""
        self._report = report

    def own(self) -> ServerReport:
        """Return this server's report."""
        return self._report()

    async def run(self) -> None:
        """Answer the other servers, over this connection and later ones. Retry until it succeeds."""
        while True:
            try:
                await self._connection.wait_up()
                await self._connection.subscribe(SERVERS_ASK, self._on_question)
            except OurFault as exc:
                log.debug("server_reports.disconnected", error=repr(exc))
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def ask(self) -> list[KnownServer]:
        """Return the other servers that were heard in the last minutes, or answer. Without NATS, none of them has a report."""
        reports: dict[str, ServerReport] = {}
        awaited = self._announcements.peers()
        if awaited:
            try:
                reports = await self._reports(awaited)
            except OurFault as exc:
                log.debug("server_reports.not_asked", error=repr(exc))
        heard = self._announcements.heard()
        known = [KnownServer(name, each.heard_s, each.is_silent, reports.pop(name, None)) for name, each in heard.items()]
        return known + [KnownServer(name, 0.0, False, report) for name, report in reports.items()]

    async def _reports(self, awaited: set[str]) -> dict[str, ServerReport]:
        found: dict[str, ServerReport] = {}

        def is_enough(reply: IncomingMessage) -> bool:
            try:
                report = _decoder.decode(reply.data)
            except msgspec.DecodeError as exc:
                log.warning("server_reports.unreadable", error=str(exc))
                return False
            found[report.server] = report
            return awaited <= found.keys()

        question = self.server.encode()
        await self._connection.request_all(SERVERS_ASK, question, within_s=self._answer_s, is_enough=is_enough)
        return found

    async def _on_question(self, msg: Msg) -> None:
        if msg.data == self.server.encode():
            return
        with self.supervisor.contain():
            try:
                await self._connection.send(OutgoingMessage(Subject(msg.reply), "", _encode(self._report())))
            except OurFault as exc:  # The other server stops waiting.
                log.debug("server_reports.not_answered", error=repr(exc))
