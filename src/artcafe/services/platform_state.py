"""The state of the platform for its operators: its servers, NATS, the readiness of this server, and the suspended tenants."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.metadata import version
from typing import Final

from artcafe.fabric.fabric import Fabric
from artcafe.fabric.nats.server_states import NatsState
from artcafe.fabric.server_reports import KnownServer, ServerReport
from artcafe.observe.clock import Clock
from artcafe.rules.pages import Page, PageRequest
from artcafe.services.readiness import Readiness
from artcafe.tables.platform_store import SuspendedTenant
from artcafe.tables.store import Store

NATS_WAIT_S: Final = 1.0
"""How long the NATS servers may take to answer. Only with one of them down is the whole time waited."""


def _unknown() -> None:
    """Return no number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThisServer:
    """What a server process knows about itself from its start."""

    host: str = socket.gethostname()
    version: str = version("artcafe")
    process: int = 1
    """Its number in the group of processes behind the same listeners."""
    processes: int = 1
    connections: Callable[[], int | None] = _unknown
    """Returns the number of open connections to both listeners."""


@dataclass(frozen=True, slots=True)
class FleetServer:
    """A server process of the fleet. Without a report everything but its name and when it was heard is unknown."""

    heard_at: datetime
    is_silent: bool
    report: ServerReport


@dataclass(frozen=True, slots=True)
class State:
    """The state at `time`, as the server `server` sees it.

    `is_complete`: whether other servers could be heard; without NATS the list may lack some. `nats` is None if no NATS server
    answers, and `nats_problem` says why there is no connection.
    """

    time: datetime
    server: str
    servers: list[FleetServer]
    is_complete: bool
    is_nats_connected: bool
    nats_problem: str | None
    nats: NatsState | None
    readiness: Mapping[str, str]


class PlatformState:
    """Reads the platform's state. The caller must be an operator."""

    def __init__(
        self, store: Store, fabric: Fabric, readiness: Readiness, clock: Clock, this: ThisServer, sessions: Callable[[], int]
    ) -> None:
        """`sessions` returns the number of authenticated sockets and streams of this server."""
        self._store, self._fabric, self._readiness, self._clock = store.platform(), fabric, readiness, clock
        self._this, self._sessions, self._started_at = this, sessions, clock()
        fabric.server_reports.set_report(self._report)

    async def get(self) -> State:
        """Ask the other servers, NATS and the dependencies at once, within 2 s. What does not answer is unknown, not zero."""
        async with asyncio.TaskGroup() as group:
            others = group.create_task(self._fabric.server_reports.ask())
            nats = group.create_task(self._fabric.nats_state(NATS_WAIT_S))
            readiness = group.create_task(self._readiness.states())
        now, is_connected = self._clock(), self._fabric.is_up
        own = FleetServer(now, False, self._report())
        return State(
            time=now,
            server=own.report.server,
            servers=[own, *sorted((_fleet_server(each, now) for each in others.result()), key=_place)],
            is_complete=self._fabric.announcements.is_listening,
            is_nats_connected=is_connected,
            nats_problem=None if is_connected else self._fabric.problem,
            nats=nats.result(),
            readiness=readiness.result(),
        )

    async def suspended_tenants(self, page_request: PageRequest) -> Page[SuspendedTenant]:
        """Return a page of the suspended tenants. It reads rows of all tenants, at most 1,000, and may be empty with a next one.

        Raises `Unavailable`.
        """
        return await self._store.suspended_tenants(page_request)

    def _report(self) -> ServerReport:
        this = self._this
        return ServerReport(
            server=self._fabric.server_reports.server,
            host=this.host,
            version=this.version,
            process=this.process,
            processes=this.processes,
            started_at=self._started_at,
            connections=this.connections(),
            sessions=self._sessions(),
        )


def _fleet_server(known: KnownServer, now: datetime) -> FleetServer:
    heard_at = now - timedelta(seconds=known.heard_s)
    return FleetServer(heard_at, known.is_silent, known.report or ServerReport(known.server))


def _place(server: FleetServer) -> tuple[str, int, str]:
    """Return the order of a list: by host, and by the process's number."""
    report = server.report
    return report.host or "", report.process or 0, report.server
